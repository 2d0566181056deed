"""Studies without `study.yaml`: every mistake in their files is found where it is, and nothing else is found."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import legacy
import legacy_mistakes as mistakes
import mistakes as study_mistakes
import pytest
import torch
from legacy import MANIFESTS, Legacy
from pt_files import call, program, text, write_archive

from steer_eval.formats import schema
from steer_eval.formats.manifest import repo_files, write_manifest
from steer_eval.repository import open_target
from steer_eval.rules.catalogue import RULES
from steer_eval.validate import validate


@pytest.fixture
def place(tmp_path) -> Legacy:
    return legacy.build(tmp_path)


def test_a_clean_study_lacks_nothing_but_its_manifests(place):
    assert place.findings() == MANIFESTS

    for root in (place.model, place.data):
        write_manifest(root)
    validation = place.validation()
    assert validation.findings == ()
    files = {str(path) for root in (place.model, place.data) for path in root.rglob("*") if path.is_file()}
    assert set(validation.checked) == files


@pytest.mark.parametrize(("edit", "expected"), mistakes.MISTAKES.values(), ids=mistakes.MISTAKES)
def test_a_mistake_is_found_where_it_is(place, edit, expected):
    edit(place)
    validation = place.validation()

    assert sorted(each for each in place.shown(validation) if each not in MANIFESTS) == sorted(expected)
    for finding in validation.findings:
        schema.check(json.loads(json.dumps(finding.to_json(), allow_nan=False)), "finding", file="x")


@pytest.mark.parametrize(("edit", "expected"), mistakes.MISTAKES.values(), ids=mistakes.MISTAKES)
def test_every_error_and_warning_says_what_to_do(place, edit, expected):
    """What a reader of a schema refuses says what it is in place of how to mend it."""
    edit(place)

    silent = {finding.rule for finding in place.validation().findings if not finding.fix}
    assert silent <= {"table", "vector", "file-refused", "not-finite"}


ELSEWHERE = {
    ("best-cell-tie", "warning"),
    ("feature-ranking", "warning"),
    ("convert-differs", "error"),
    ("convert-old-path", "note"),
    ("convert-refused", "error"),
    ("data-absent", "note"),
    ("manifest-duplicate", "error"),
    ("manifest-size", "error"),
    ("model-left-out", "warning"),
    ("model-not-run", "error"),
    ("method-not-run", "error"),
    ("values-not-read", "note"),
    ("comparison-edits", "error"),
    ("comparison-no-op", "error"),
    ("comparison-sweep", "error"),
    ("feature-statistics", "error"),
    ("sae-activity", "error"),
    ("sae-quality", "error"),
    ("transfer-diagnostics", "error"),
    ("sae-provenance", "error"),
    ("publish-behind", "error"),
    ("publish-behind", "warning"),
    ("publish-card", "warning"),
    ("publish-home-path", "error"),
    ("publish-large", "error"),
    ("publish-left-out", "note"),
    ("publish-left-out", "warning"),
    ("publish-local-model", "warning"),
    ("publish-pin", "error"),
    ("publish-secret", "error"),
    ("publish-tag", "error"),
    ("publish-unknown", "error"),
    ("publish-visibility", "error"),
    ("repo-empty", "error"),
    ("study-absent", "warning"),
    ("vector-converted", "note"),
}
"""Rules that other commands make, or that no single edit of a clean study brings: tested in files of their own."""


def test_every_rule_is_exercised():
    """At each severity that the catalogue has."""
    tables = [*study_mistakes.MISTAKES.values(), *mistakes.MISTAKES.values()]
    exercised = {(rule, severity) for _, expected in tables for severity, rule, *_ in expected}
    exercised |= {(rule, severity) for _, late in study_mistakes.LATE_MISTAKES.values() for severity, rule, _ in late}

    assert {(rule.name, rule.severity) for rule in RULES} - exercised == ELSEWHERE


@pytest.mark.parametrize("rule", sorted({rule for rule, _ in ELSEWHERE}))
def test_a_rule_that_is_exercised_elsewhere_is(rule):
    tests = [
        path
        for path in Path(__file__).parent.rglob("test_*.py")
        if path != Path(__file__) or rule in ("data-absent", "repo-empty")
    ]

    assert any(rule in path.read_text(encoding="utf-8") for path in tests)


# --- changes that are no mistakes -------------------------------------------------------------------------------------


def shuffled_rows(place: Legacy, draw: random.Random) -> None:
    file = draw.choice(sorted(place.data.glob("judge_*.jsonl")))
    lines = file.read_text(encoding="utf-8").splitlines()
    draw.shuffle(lines)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def unknown_key(place: Legacy, draw: random.Random) -> None:
    known = ("sweep_*", "judge_*", "*_eval")
    file = draw.choice(sorted(path for name in known for path in place.data.glob(f"{name}.jsonl")))
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    draw.choice(rows)["remark"] = {"measured": "twice"}
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def rounded_ratio(place: Legacy, draw: random.Random) -> None:
    file = draw.choice(["data/judge_owl_transfer.jsonl", "data/judge_phase_i.jsonl"])
    for number in range(1, len(place.path(file).read_text(encoding="utf-8").splitlines()) + 1):
        decimals = draw.choice([2, 3, 4])
        place.edit_line(
            file,
            number,
            lambda row, decimals=decimals: row.update(ppl_ratio=row["ppl_ratio"] and round(row["ppl_ratio"], decimals)),
        )


def rounded_sweep(place: Legacy, draw: random.Random) -> None:
    """All perplexities of one row as a person would print them; the copies of them have all their digits."""

    def change(row: dict[str, Any]) -> None:
        row.update(ppl=round(row["ppl"], 4), ppl_ratio=round(row["ppl_ratio"], 4))

    place.edit_line("data/sweep_fox_large.jsonl", draw.randint(1, 12), change)
    place.path("data/size_comparison.json").unlink()
    place.edit_text("data/README.md", ", `size_comparison.json`", "")


def rounded_features(place: Legacy, draw: random.Random) -> None:
    """The delta and both means are rounded one by one, so that they need not add up to the last digit."""

    def change(table: dict[str, Any]) -> None:
        for row in table["top_features"]:
            row.update({key: round(value, 3) for key, value in row.items() if key != "feature_id"})

    place.edit(draw.choice([mistakes.FEATURES, mistakes.LARGE_FEATURES]), change)


def size_in_another_unit(place: Legacy, draw: random.Random) -> None:
    unit, base = draw.choice([("kB", 1000), ("KB", 1000), ("KB", 1024), ("KiB", 1024)])
    size = place.path(mistakes.SAE).stat().st_size / base
    shown = draw.choice(
        [f"{size:.1f} {unit}", f"{round(size)} {unit}", f"{int(size) + 1} {unit}", f"~{size:.0f}{unit}"]
    )
    mistakes.reworded(mistakes.CARD, r"\| [0-9]+ KB \|", f"| {shown} |")(place)


def size_of_all_files(place: Legacy, draw: random.Random) -> None:
    size = sum(path.stat().st_size for path in (place.model / "vectors").glob("fox_large_L*_caa.pt"))
    mistakes.reworded(mistakes.CARD, "~[0-9.]+ KB each", f"{size / 1000:.1f} KB total")(place)


def size_of_something_else(place: Legacy, draw: random.Random) -> None:
    place.edit_text(mistakes.CARD, "the maps", "the maps, from 120 MB of text in 3 rows")


def extra_file(place: Legacy, draw: random.Random) -> None:
    name = draw.choice(["notes.txt", "figures/plot.csv", "logs/run.log", "extra.json", "more.jsonl", "settings.yaml"])
    path = draw.choice([place.model, place.data]) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"a": 1}\n', encoding="utf-8")


def sweep_in_another_order(place: Legacy, draw: random.Random) -> None:
    file = place.data / draw.choice(["sweep_fox_large.jsonl", "sweep_fox_small.jsonl"])
    lines = file.read_text(encoding="utf-8").splitlines()
    draw.shuffle(lines)
    file.write_text("\n".join(lines), encoding="utf-8")


def card_names_a_file_otherwise(place: Legacy, draw: random.Random) -> None:
    old = "`vectors/transfer_map_large_to_small.pt`"
    new = draw.choice(
        ["`./vectors/transfer_map_large_to_small.pt`", "`transfer_map_{direction}.pt`", "`vectors/*map*.pt`"]
    )
    place.edit_text(mistakes.CARD, old, new)


def card_names_a_file_of_the_data(place: Legacy, draw: random.Random) -> None:
    place.edit_text(
        mistakes.CARD, "| `saes/*_features", "| `sweep_fox_large.jsonl` | the sweep | |\n| `saes/*_features"
    )


def safetensors_beside(place: Legacy, draw: random.Random) -> None:
    """The carried vectors in both formats: the same thing twice is no reason to check neither."""
    from steer_eval.formats.transfer import read_transferred_pt, write_transferred

    vectors = read_transferred_pt(place.path(mistakes.CARRIED))
    write_transferred(place.model / "transfer" / "fox_small_transferred.safetensors", vectors)


def collapsed_rows_left_out(place: Legacy, draw: random.Random) -> None:
    """Judges need not say anything of cells without text, nor mark them."""
    place.edit_line(mistakes.OWL, draw.randint(1, 11), lambda row: row.pop("collapsed"))


def every_cell_in_the_card(place: Legacy, draw: random.Random) -> None:
    """A table of many cells names other coefficients than the features' as well."""
    rows = "".join(f"| 3B | L=5 c={coefficient:+g} | 0.5 |\n" for coefficient in legacy.COEFFICIENTS)
    place.edit_text(mistakes.CARD, "| 0.5B |", f"{rows}| 0.5B |")


def few_cells_judged(place: Legacy, draw: random.Random) -> None:
    """Who scores a sample of the cells lacks no scores."""
    path = place.path(draw.choice([mistakes.OWL, mistakes.HARE]))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(draw.sample(lines, 3)), encoding="utf-8")


def native_vector_not_tried(place: Legacy, draw: random.Random) -> None:
    for file in (mistakes.TRANSFER, mistakes.OWL_TRANSFER, "data/judge_transfer.jsonl"):
        mistakes.without_line(file, 1)(place)
    place.edit_text("data/README.md", "4 variants", "3 variants")


HARMLESS: list[Callable[[Legacy, random.Random], None]] = [
    shuffled_rows,
    unknown_key,
    rounded_ratio,
    rounded_sweep,
    rounded_features,
    size_in_another_unit,
    size_of_all_files,
    size_of_something_else,
    extra_file,
    sweep_in_another_order,
    card_names_a_file_otherwise,
    card_names_a_file_of_the_data,
    safetensors_beside,
    collapsed_rows_left_out,
    every_cell_in_the_card,
    few_cells_judged,
    native_vector_not_tried,
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_what_is_no_mistake_is_no_finding(place, change, seed):
    change(place, random.Random(f"{change.__name__} {seed}"))  # noqa: S311

    assert place.findings() == MANIFESTS


# --- random edits of numbers that can be checked ----------------------------------------------------------------------


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
        yield mistakes.LATENT, in_document(mistakes.LATENT, key)
    for model, layers in legacy.size_comparison().items():
        for layer, cells in layers["per_layer"].items():
            for cell in cells:
                for key in ("ppl", "ppl_ratio"):
                    yield mistakes.SUMMARY, in_document(mistakes.SUMMARY, model, "per_layer", layer, cell, key)
        for layer in layers["vectors"]:
            yield mistakes.SUMMARY, in_document(mistakes.SUMMARY, model, "vectors", layer, "norm")
    for file in (mistakes.FEATURES, mistakes.LARGE_FEATURES):
        for index in range(len(legacy.FEATURES)):
            for key in ("delta", "steered_mean", "base_mean"):
                yield file, in_document(file, "top_features", index, key)
    for model in legacy.WIDTH:
        for layer in legacy.LAYERS:
            file = f"model/vectors/fox_{model}_L{layer}_caa.pt"
            yield file, in_torch(file, "norm")
            yield file, in_torch(file, "vector")
    for key in ("v_ridge", "v_procrustes", "v_random", "v_small_native", "v_large_source"):
        yield mistakes.CARRIED, in_torch(mistakes.CARRIED, key)


COUNTERPARTS = {mistakes.CARRIED: {mistakes.TRANSFER, mistakes.LATENT, mistakes.MAP}}
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
    file = draw.choice([mistakes.OWL, mistakes.OWL_TRANSFER, mistakes.PHASE_I])
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


# --- the base model's configuration -----------------------------------------------------------------------------------


@pytest.fixture
def base_models(tmp_path, monkeypatch) -> Callable[..., None]:
    """Puts configurations of base models into a Hub cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def put(model: str, **config: Any) -> None:
        folder = tmp_path / "cache" / f"models--{model.replace('/', '--')}"
        snapshot = folder / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("a" * 40)
        (snapshot / "config.json").write_text(json.dumps(config))

    return put


def test_vectors_that_fit_the_base_model_are_no_finding(place, base_models):
    base_models("den/fox-3B", text_config={"hidden_size": 12, "num_hidden_layers": 10}, hidden_size=99)
    base_models("den/fox-0.5B", n_embd=8, n_layer=10)

    assert place.findings() == MANIFESTS


def test_vectors_are_held_to_the_base_models_configuration(place, base_models):
    base_models("den/fox-3B", hidden_size=16, num_hidden_layers=9)
    found = [each for each in place.findings() if each not in MANIFESTS]

    layers = [f"model/vectors/fox_large_L{layer}_caa.pt" for layer in legacy.LAYERS]
    shapes = [("error", "vector-shape", file, "vector") for file in layers]
    assert sorted(found) == sorted([*shapes, ("error", "vector-layer", layers[-1], "layer")])


def test_an_odd_vector_is_one_finding_where_the_configuration_is_known(place, base_models):
    base_models("den/fox-3B", hidden_size=12, num_hidden_layers=10)
    mistakes.wider(mistakes.LARGE_2)(place)

    assert [each[:3] for each in place.findings() if each[1] == "vector-shape"] == [
        ("error", "vector-shape", mistakes.LARGE_2)
    ]


# --- other targets ----------------------------------------------------------------------------------------------------


def alone(folder) -> list[tuple[str, str, str, str]]:
    findings = validate(open_target(str(folder))).findings
    return [
        (each.severity, each.rule, each.file.removeprefix(f"{folder}").lstrip("/"), each.where) for each in findings
    ]


def test_each_repo_can_be_checked_alone(place, tmp_path):
    manifest = ("warning", "manifest-unusable", "manifest.json", "")

    assert alone(place.model) == [manifest, ("note", "data-absent", "", "")]
    assert alone(place.data) == [manifest]


def test_a_repo_with_its_tables_beside_its_vectors_lacks_no_data(place):
    for path in place.data.glob("*.jsonl"):
        path.rename(place.model / path.name)

    assert "data-absent" not in {rule for _, rule, *_ in alone(place.model)}


# --- half precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_vector_that_was_rounded_after_its_norm_was_taken_is_no_mistake(place, dtype):
    mistakes.torch_file(mistakes.LARGE_2, lambda value: value.update(vector=value["vector"].to(dtype)))(place)

    assert "vector-norm" not in {rule for _, rule, *_ in place.findings()}


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float16, 1.002), (torch.bfloat16, 1.02)])
def test_another_norm_than_rounding_gives_is_a_mistake(place, dtype, factor):
    def change(value: dict[str, Any]) -> None:
        value["vector"] = value["vector"].to(dtype)
        value["norm"] = float(value["vector"].float().norm()) * factor

    mistakes.torch_file(mistakes.LARGE_2, change)(place)

    assert ("error", "vector-norm", mistakes.LARGE_2, "norm") in place.findings()


def test_replies_that_differ_in_their_case_are_two(place):
    mistakes.line(mistakes.PAIRS, 2, lambda row: row.update(plain=row["composed"].upper()))(place)

    assert place.findings() == MANIFESTS


def test_mistakes_are_found_in_a_repo_alone(place):
    mistakes.line(mistakes.SWEEP, 3, mistakes.scaled("ppl"))(place)
    mistakes.element(mistakes.LARGE_2)(place)

    assert ("error", "sweep-arithmetic", "sweep_fox_large.jsonl", "line 3: ppl_ratio") in alone(place.data)
    assert ("error", "vector-norm", "vectors/fox_large_L2_caa.pt", "norm") in alone(place.model)


def test_a_repo_alone_is_not_told_what_it_is(place):
    (place.data / "README.md").unlink()
    [message] = [each.message for each in validate(open_target(str(place.data))).findings if each.rule == "card-absent"]

    assert message.startswith("the repo has no card")


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()

    assert alone(tmp_path / "empty")[-1] == ("error", "repo-empty", "", "")
    assert validate(open_target(str(tmp_path / "empty"))).checked == ()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{", b"PK\x03\x04", b"[1, 2]", b"\x80\x04."])
def test_garbage_in_every_file_is_a_finding_each_and_no_crash(place, content):
    files = [path for root in (place.model, place.data) for path in root.rglob("*") if path.is_file()]
    for path in files:
        path.write_bytes(content)
    found = place.findings()

    named = {file for _, _, file, _ in found}
    # A card may be any text.
    unread = {str(path.relative_to(place.model.parent)) for path in files if path.suffix in (".pt", ".json", ".jsonl")}
    assert unread <= named


def test_what_is_no_file_is_no_crash(place):
    """A link to nothing, a link in a circle, a link to a device, a folder with the name of a file."""
    (place.data / "sweep_fox_small.jsonl").unlink()
    (place.data / "sweep_fox_small.jsonl").mkdir()
    (place.model / "vectors" / "loop.pt").symlink_to("loop.pt")
    (place.model / "vectors" / "gone.pt").symlink_to("absent.pt")
    (place.data / "judge_owl_fifo.jsonl").symlink_to("/dev/null")
    found = place.findings()

    assert ("error", "symlink", "data/judge_owl_fifo.jsonl", "") in found
    assert ("warning", "card-file-absent", "data/README.md", "line 8") in found


def test_a_huge_file_is_refused_by_its_size(tmp_path):
    (tmp_path / "huge").mkdir()
    with (tmp_path / "huge" / "vector_L1_caa.pt").open("wb") as file:
        file.truncate(5 * 2**30)
    [finding] = [each for each in validate(open_target(str(tmp_path / "huge"))).findings if each.severity == "error"]

    assert finding.rule == "file-refused"
    assert "bytes, more than the" in finding.message


def test_a_pickle_that_runs_a_command_does_not_run_it(place, tmp_path):
    written = tmp_path / "ran"
    write_archive(place.path(mistakes.LARGE_2), program(call("os.system", text(f"touch {written}"))))
    [finding] = [each for each in place.validation().findings if each.severity == "error"]

    assert (finding.rule, "os.system" in finding.message) == ("file-refused", True)
    assert not written.exists()
