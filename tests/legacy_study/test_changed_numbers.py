"""Any number that follows from others, and any bit once there is a manifest: a change of it is found."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import legacy_contents as contents
import legacy_edits as edits
import pytest
from legacy import MANIFESTS, Legacy

from steer_eval.formats.manifest import repo_files, write_manifest


def numbers(place: Legacy) -> Iterator[tuple[str, Callable[[float], None]]]:
    """Every number of the study that follows from others: its file, and how to multiply it."""

    def in_line(file: str, line: int, *keys: str) -> Callable[[float], None]:
        def change(factor: float) -> None:
            def edit(row: dict[str, Any]) -> None:
                for key in keys[:-1]:
                    row = row[key]
                row[keys[-1]] *= factor

            place.edit_line(file, line, edit)

        return change

    def in_document(file: str, *keys: Any) -> Callable[[float], None]:
        def change(factor: float) -> None:
            def edit(value: Any) -> None:
                for key in keys[:-1]:
                    value = value[key]
                value[keys[-1]] *= factor

            place.edit(file, edit)

        return change

    def in_torch(file: str, key: str) -> Callable[[float], None]:
        return lambda factor: place.edit_torch(file, lambda value: value.update({key: value[key] * factor}))

    checkable = ("ppl", "base_ppl", "ppl_ratio", "base_ppl_08", "norm", "alpha")
    for path in sorted(place.data.glob("*.jsonl")):
        file = f"data/{path.name}"
        for line, content in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            row = json.loads(content)
            for key in checkable:
                # Feature steering's alpha is the strength that was chosen: nothing follows from it.
                if row.get(key) is not None and (key != "alpha" or "per_layer_coefs" in row):
                    yield file, in_line(file, line, key)
            if row.get("margin"):
                yield file, in_line(file, line, "margin")
            for layer in row.get("per_layer_coefs", ()):
                yield file, in_line(file, line, "per_layer_coefs", layer)
    for key in ("cos_ridge_native", "cos_proc_native", "cos_ridge_proc"):
        yield edits.LATENT, in_document(edits.LATENT, key)
    for model, layers in contents.size_comparison().items():
        for layer, cells in layers["per_layer"].items():
            for cell in cells:
                for key in ("ppl", "ppl_ratio"):
                    yield edits.SUMMARY, in_document(edits.SUMMARY, model, "per_layer", layer, cell, key)
        for layer in layers["vectors"]:
            yield edits.SUMMARY, in_document(edits.SUMMARY, model, "vectors", layer, "norm")
    for file in (edits.FEATURES, edits.LARGE_FEATURES):
        for index in range(len(contents.FEATURES)):
            for key in ("delta", "steered_mean", "base_mean"):
                yield file, in_document(file, "top_features", index, key)
    for model in contents.WIDTH:
        for layer in contents.LAYERS:
            file = f"model/vectors/fox_{model}_L{layer}_caa.pt"
            yield file, in_torch(file, "norm")
            yield file, in_torch(file, "vector")
    for key in ("v_ridge", "v_procrustes", "v_random", "v_small_native", "v_large_source"):
        yield edits.CARRIED, in_torch(edits.CARRIED, key)


COUNTERPARTS = {edits.CARRIED: {edits.TRANSFER, edits.LATENT, edits.MAP}}
"""Where it shows that a file without numbers of its own is wrong."""


@pytest.mark.parametrize("seed", range(100))
def test_a_changed_number_is_found(place, seed):
    draw = random.Random(seed)  # noqa: S311
    file, change = draw.choice(list(numbers(place)))
    change(1 + draw.choice([-1, 1]) * 10 ** draw.uniform(-3, -0.5))

    named = {where for _, _, where, _ in place.findings() if where}
    assert named & {file, *COUNTERPARTS.get(file, ())}, file


@pytest.mark.parametrize("seed", range(20))
def test_a_changed_axis_is_found_where_there_is_a_margin(place, seed):
    draw = random.Random(seed)  # noqa: S311
    file = draw.choice([edits.OWL, edits.OWL_TRANSFER, edits.PHASE_I])
    line = draw.randint(1, len(place.path(file).read_text(encoding="utf-8").splitlines()))
    axis = draw.choice(["mature_anger", "juvenile_rage"])
    place.edit_line(file, line, lambda row: row.update({axis: row[axis] + (0.5 if row[axis] < 5 else -0.5)}))

    assert [each for each in place.findings() if each not in MANIFESTS] == [
        ("error", "judge-margin", file, f"line {line}: margin")
    ]


@pytest.mark.parametrize("seed", range(30))
def test_after_the_manifest_is_written_any_flipped_bit_is_found(place, seed):
    for root in (place.model, place.data):
        write_manifest(root)
    file = flip_a_bit(place, random.Random(seed))  # noqa: S311

    assert ("error", "checksum", file, "") in place.findings()


def flip_a_bit(place: Legacy, draw: random.Random) -> str:
    """Flip one bit in any of the files, each as likely as the others."""
    files = [
        f"{name}/{path}" for name, root in (("model", place.model), ("data", place.data)) for path in repo_files(root)
    ]
    file = draw.choice(files)
    content = bytearray(place.path(file).read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    place.path(file).write_bytes(content)
    return file
