"""What is wrong with the study that the toolkit must reproduce, and what is found when something else goes wrong in it.

The expected set was computed by hand from the files; nothing of them is kept in this repo.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import legacy_edits as edits
import pytest
from legacy import Legacy
from legacy_edits import Edit, absent, element, error, line, link_out, malicious, note, put, scaled, warning

from steer_eval.formats.manifest import repo_files, write_manifest
from steer_eval.recompute import recompute
from steer_eval.repository import open_target
from steer_eval.validate import validate

CARD = "model/README.md"
PHASE_I = "data/judge_phase_i.jsonl"
TRANSFER = "data/transfer_eval.jsonl"
FEATURE_STEERING = "data/sae_steer_eval.jsonl"
FOUND = [
    error("not-finite", "data/latent_diff.json", "line 23: cca_fit_corrs[19]"),
    error("not-finite", "data/latent_diff.json", "line 45: cca_heldout_corrs[19]"),
    warning("alignment-degenerate", "data/latent_diff.json", "cca_fit_corrs"),
    *(error("judge-label", PHASE_I, f"line {number}: label") for number in range(3, 10)),
    warning("judge-imputed", PHASE_I, "line 7"),
    warning("judge-imputed", "data/judge_deepseek_large.jsonl", "line 5"),
    warning("judge-imputed", "data/judge_deepseek_small.jsonl", "line 5"),
    warning("judge-imputed", "data/judge_deepseek_xlarge.jsonl", "line 6"),
    warning("feature-coefficient", "model/saes/qwen_large_L14_features.json", "coef"),
    warning("feature-coefficient", "model/saes/qwen_small_L14_features.json", "coef"),
    *(warning("transfer-norm", TRANSFER, f"line {number}: norm") for number in (2, 3, 4)),
    warning("texts-identical", "data/patch_eval.jsonl", "line 2: generations"),
    warning("texts-identical", FEATURE_STEERING, "line 3: generations"),
    *(warning("card-file-absent", CARD, f"line {number}") for number in (33, 34, 35)),
    warning("card-absent", "data/README.md"),
    warning("manifest-unusable", "model/manifest.json"),
    warning("manifest-unusable", "data/manifest.json"),
    *(note("collapse-unmarked", FEATURE_STEERING, f"line {number}: collapsed") for number in (1, 2, 3)),
    note("feature-unlisted", FEATURE_STEERING, "feat_ids"),
    note("card-metadata", CARD, "front matter"),
]


@pytest.fixture
def copy(upstream: Path, tmp_path: Path) -> Legacy:
    """A copy of the study that may be changed."""
    place = Legacy(tmp_path / "model", tmp_path / "data")
    for source, folder in ((upstream / "model", place.model), (upstream / "dataset", place.data)):
        # The contents alone: the files may be read-only.
        shutil.copytree(source, folder, copy_function=shutil.copyfile)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    return place


def test_the_published_study_has_exactly_the_mistakes_that_it_has(copy):
    assert Counter(copy.findings()) == Counter(FOUND)


def test_it_is_checked_where_it_is(upstream):
    validation = validate(open_target(str(upstream / "model"), str(upstream / "dataset")))

    assert len(validation.findings) == len(FOUND)
    assert len(validation.checked) == sum(path.is_file() for path in upstream.rglob("*"))


LARGE, SMALL, XLARGE = "data/sweep_qwen_large.jsonl", "data/sweep_qwen_small.jsonl", "data/sweep_qwen_xlarge.jsonl"
NAN = float("nan")


def vector(model: str, layer: int) -> str:
    return f"model/vectors/qwen_{model}_L{layer}_caa.pt"


def strongest(file: str, factor: float) -> Edit:
    """Multiply the element of a vector that is largest."""

    def change(value: dict[str, Any]) -> None:
        value["vector"][value["vector"].abs().argmax()] *= factor

    return edits.torch_file(file, change)


EDITS: dict[str, tuple[Edit, tuple[str, str, str, str]]] = {
    **{
        f"{name}: {file.rsplit('/', 1)[-1]}": (make(file), found(file))
        for file in (vector("large", 14), vector("small", 14), vector("small", 6), vector("xlarge", 18))
        for name, make, found in [
            (
                "one element by one percent",
                lambda file: strongest(file, 1.01),
                lambda file: error("vector-norm", file, "norm"),
            ),
            (
                "one element",
                lambda file: element(file, index=77, factor=-30.0),
                lambda file: error("vector-norm", file, "norm"),
            ),
            (
                "norm",
                lambda file: edits.torch_file(file, scaled("norm", 1.0001)),
                lambda file: error("vector-norm", file, "norm"),
            ),
            (
                "NaN",
                lambda file: edits.torch_file(file, lambda value: value["vector"].__setitem__(5, NAN)),
                lambda file: error("not-finite", file, "vector[5]"),
            ),
            ("pickle", malicious, lambda file: error("file-refused", file, "data.pkl")),
            ("link", link_out, lambda file: error("symlink", file)),
        ]
    },
    "NaN in a sweep": (line(LARGE, 3, put("ppl", NAN)), error("not-finite", LARGE, "line 3")),
    "NaN in a score": (
        line("data/judge_qwen_large.jsonl", 3, put("coherence", NAN)),
        error("not-finite", "data/judge_qwen_large.jsonl", "line 3"),
    ),
    "NaN in the summary": (
        edits.document("data/size_comparison.json", edits.of_cell("large", 6, 1.0, ppl=NAN)),
        error("not-finite", "data/size_comparison.json", "line 11: large.per_layer.6.1.0.ppl"),
    ),
    "cell": (edits.without_line(LARGE, 16), error("sweep-missing", LARGE, "L=14 c=1")),
    "cell of the native vector": (edits.without_line(SMALL, 16), error("sweep-missing", SMALL, "L=14 c=1")),
    "collapsed cell": (edits.without_line(SMALL, 35), error("sweep-missing", SMALL, "L=22 c=10")),
    "first imputed cell": (edits.without_line(LARGE, 5), error("sweep-missing", LARGE, "L=6 c=6")),
    "cell of a small grid": (edits.without_line(XLARGE, 5), error("sweep-missing", XLARGE, "L=18 c=2")),
    "ratio": (line(LARGE, 16, scaled("ppl_ratio")), error("sweep-arithmetic", LARGE, "line 16: ppl_ratio")),
    "mark": (line(LARGE, 16, put("collapsed", True)), error("sweep-arithmetic", LARGE, "line 16: collapsed")),
    "mark left out": (line(LARGE, 5, put("collapsed", False)), error("sweep-arithmetic", LARGE, "line 5: collapsed")),
    "margin": (
        line("data/judge_deepseek_large.jsonl", 16, put("margin", 3.0)),
        error("judge-margin", "data/judge_deepseek_large.jsonl", "line 16: margin"),
    ),
    "model of features": (
        edits.document("model/saes/qwen_large_L14_features.json", put("model", "Qwen/Qwen3.5-2B-Base")),
        error("feature-model", "model/saes/qwen_large_L14_features.json", "model"),
    ),
    "link to texts": (link_out("data/eval_prompts.jsonl"), error("symlink", "data/eval_prompts.jsonl")),
    "link to vectors": (link_out("model/vectors/qwen_xlarge_L13_caa.pt"), error("symlink", vector("xlarge", 13))),
    "vector absent": (absent(vector("xlarge", 13)), warning("card-file-absent", CARD, "line 31")),
}


@pytest.mark.parametrize(("edit", "finding"), EDITS.values(), ids=EDITS)
def test_each_further_mistake_adds_its_own_finding_and_hides_none(copy, edit, finding):
    edit(copy)

    assert Counter(copy.findings()) == Counter([*FOUND, finding])


def test_a_link_out_of_the_repo_is_the_only_news(copy):
    """Whichever file it hides: nothing is said to be absent or wrong because a link to it is not followed."""
    for name, folder in (("model", copy.model), ("data", copy.data)):
        for path in list(repo_files(folder)):
            outside = copy.model.parent / "outside"
            (folder / path).rename(outside)
            (folder / path).symlink_to(outside)
            new = Counter(copy.findings()) - Counter(FOUND)
            (folder / path).unlink()
            outside.rename(folder / path)

            assert list(new) == [error("symlink", f"{name}/{path}")]


@pytest.fixture(scope="module")
def sealed(upstream: Path, tmp_path_factory: pytest.TempPathFactory) -> Legacy:
    folder = tmp_path_factory.mktemp("sealed")
    place = Legacy(folder / "model", folder / "data")
    for source, target in ((upstream / "model", place.model), (upstream / "dataset", place.data)):
        shutil.copytree(source, target, copy_function=shutil.copyfile)
        for path in (target, *target.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        write_manifest(target)
    return place


def test_one_flipped_bit_in_any_file_is_found(sealed):
    draw = random.Random(20)  # noqa: S311
    files = [
        (f"{name}/{path}", folder / path)
        for name, folder in (("model", sealed.model), ("data", sealed.data))
        for path in repo_files(folder)
    ]
    # Every file at least once.
    for name, path in [*files, *draw.choices(files, k=60 - len(files))]:
        content = path.read_bytes()
        changed = bytearray(content)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            assert ("error", "checksum", name, "") in sealed.findings()
        finally:
            path.write_bytes(content)


def test_each_repo_alone_is_told_of_its_own_mistakes(copy):
    def alone(folder: Path) -> Counter[tuple[str, str, str, str]]:
        findings = validate(open_target(str(folder))).findings
        root = f"{folder.parent}/"
        return Counter((each.severity, each.rule, each.file.removeprefix(root), each.where) for each in findings)

    # Whether the card names its data shows only where the data is there.
    of_model = [each for each in FOUND if each[2].startswith("model/") and each != FOUND[-1]]
    of_both = {"transfer-norm", "feature-unlisted"}
    of_data = [each for each in FOUND if each[2].startswith("data/") and each[1] not in of_both]

    assert alone(copy.model) == Counter([*of_model, note("data-absent", "model")])
    assert alone(copy.data) == Counter(of_data)


def test_a_recomputation_names_the_ties_of_the_card_and_the_study_that_a_re_run_needs(copy, tmp_path):
    report = recompute(open_target(str(copy.model), str(copy.data)), level="rerun", run=tmp_path / "run")
    named = {(finding.severity, finding.rule) for finding in report.findings}

    assert named >= {("warning", "best-cell-tie"), ("warning", "study-absent")}


def test_its_numbers_are_exact_so_that_every_changed_one_is_found(copy):
    """Perplexities, ratios and margins of random rows, each off by a thousandth."""
    draw = random.Random(5)  # noqa: S311
    tables = [LARGE, SMALL, XLARGE, TRANSFER, FEATURE_STEERING, "data/multi_layer_eval.jsonl"]
    tables += [f"data/judge_deepseek_{name}.jsonl" for name in ("large", "small", "xlarge", "transfer")]
    for _ in range(40):
        file = draw.choice(tables)
        path = copy.path(file)
        content = path.read_bytes()
        number = draw.randrange(content.count(b"\n")) + 1
        row = json.loads(content.splitlines()[number - 1])
        key = draw.choice([key for key in ("ppl", "ppl_ratio", "base_ppl", "margin") if key in row])
        copy.edit_line(file, number, bumped(key))
        new = Counter(copy.findings()) - Counter(FOUND)
        path.write_bytes(content)

        assert any(each[2] == file for each in new), f"{file}, line {number}: {key}"


def bumped(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda row: row.update({key: row[key] * 1.001 or 0.001})
