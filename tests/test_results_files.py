from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import CORPUS, HEX, LAYERS, PAIRS, PROMPTS, build, environment, rows

from steer_eval.cells import Cell
from steer_eval.environment import Environment
from steer_eval.errors import FormatError
from steer_eval.evaluation.perplexity import Interval
from steer_eval.formats.strict_json import read_jsonl
from steer_eval.results import SweepRow, Text, sentence_perplexity
from steer_eval.results_files import NLL_DECIMALS, read_sweep, read_table, row_to_json, write_sweep

POSITIVE = st.floats(1e-6, 1e6)
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
TEXTS = st.builds(
    Text,
    st.integers(0, 99),
    WORDS,
    WORDS,
    st.none() | st.integers(0, 99),
    st.none() | st.sampled_from(["eos", "length"]),
    st.none() | st.integers(0, 99),
    st.none() | st.just("serial"),
)
CELLS = st.one_of(
    st.builds(
        Cell, st.just("tiny"), st.sampled_from(["steered", "random", "zero"]), st.integers(0, 90), st.floats(-9, 9)
    ),
    st.just(Cell("tiny", "anchor", None, 0.0)),
)


@st.composite
def sweep_rows(draw):
    low, high = sorted(draw(st.tuples(POSITIVE, POSITIVE)))
    sentences = draw(st.none() | st.integers(1, 5))
    nll = tokens = None
    if sentences:
        # Written with a fixed number of decimals, so values of that form come back exactly.
        nll = np.array(
            draw(
                st.lists(
                    st.integers(0, 10**9).map(lambda n: n / 10**NLL_DECIMALS), min_size=sentences, max_size=sentences
                )
            )
        )
        tokens = np.array(draw(st.lists(st.integers(1, 900), min_size=sentences, max_size=sentences)), dtype=np.int64)
    return SweepRow(
        cell=draw(CELLS),
        base_ppl=draw(POSITIVE),
        ppl=draw(POSITIVE),
        ppl_ratio=draw(POSITIVE),
        collapsed=draw(st.booleans()),
        generations=tuple(draw(st.lists(TEXTS, max_size=3))),
        interval=draw(st.none() | st.just(Interval(low, high))),
        undecided=draw(st.none() | st.booleans()),
        sentence_nll=nll,
        sentence_tokens=tokens,
        system_prompt=draw(st.none() | WORDS),
    )


def plain(row: SweepRow) -> dict[str, object]:
    fields = {name: getattr(row, name) for name in SweepRow.__dataclass_fields__ if name != "line"}
    for name in ("sentence_nll", "sentence_tokens"):
        fields[name] = None if fields[name] is None else (fields[name].dtype, fields[name].tolist())
    return fields


@settings(max_examples=60, deadline=None)
@given(st.lists(sweep_rows(), min_size=1, max_size=4))
def test_a_sweep_is_read_as_it_was_written(written):
    with TemporaryDirectory() as folder:
        write_sweep(Path(folder), "tiny", written)
        sweep = read_sweep(Path(folder), "tiny")

        assert [plain(row) for row in sweep.rows] == [plain(row) for row in written]
        assert [row.line for row in sweep.rows] == list(range(1, len(written) + 1))
        assert sweep.file == "sweep_tiny.jsonl"


@given(sweep_rows())
def test_what_is_not_known_is_left_out(row):
    value = row_to_json(row)

    assert None not in [part for key, part in value.items() if key != "layer"]
    assert ("collapse_undecided" in value) is (row.undecided is not None)
    assert value.get("collapse_undecided") is row.undecided


def test_rounding_of_sentence_sums_keeps_the_perplexity(tmp_path):
    place = build(tmp_path)
    written = rows(place.study(), "tiny")
    again = place.results().sweeps["tiny"].rows

    assert len(again) == len(written)
    for before, after in zip(written, again, strict=True):
        assert sentence_perplexity(after) == pytest.approx(before.ppl, rel=1e-7)


def test_a_whole_study_is_loaded(tmp_path):
    results = build(tmp_path, models=("tiny", "other")).results()

    assert results.unusable == {}
    assert set(results.sweeps) == {"tiny", "other"}
    assert set(results.vectors) == {(model, layer) for model in ("tiny", "other") for layer in LAYERS}
    assert results.prompts == PROMPTS
    assert [(pair.scenario, pair.positive, pair.negative) for pair in results.pairs] == [
        (pair["scenario"], pair["angry"], pair["calm"]) for pair in PAIRS
    ]
    assert results.corpus == CORPUS
    assert results.environments["tiny"] == Environment("x86_64 AVX2", "cpu", "float32", 2, {"torch": "2.13.0"})
    assert results.weights == {"tiny": HEX, "other": HEX}
    assert results.environments["tiny"].machine_class == environment()["machine_class"]


FILES = {
    "sweep_tiny.jsonl": "sweeps",
    "contrast_pairs.jsonl": "pairs",
    "eval_prompts.jsonl": "prompts",
    "perplexity_corpus.txt": "corpus",
    "environment.json": "environments",
    "vectors/tiny_L1_caa.safetensors": "vectors",
}


@pytest.mark.parametrize("damage", ["absent", "not UTF-8", "empty", "folder", "link out of the repo"])
@pytest.mark.parametrize("file", FILES)
def test_a_bad_file_keeps_its_reason_and_hides_no_other(tmp_path, file, damage):
    place = build(tmp_path)
    whole = place.results()
    path = next(root / file for root in (place.model, place.data) if (root / file).exists())
    path.rename(tmp_path / "elsewhere")
    if damage == "folder":
        path.mkdir()
    elif damage == "link out of the repo":
        path.symlink_to(tmp_path / "elsewhere")
    elif damage != "absent":
        path.write_bytes(b"" if damage == "empty" else b"\xff\xfe")
    results = place.results()

    assert list(results.unusable) == [file]
    assert results.why_absent(file) == f"{file}: {results.unusable[file]}"
    if damage in {"absent", "link out of the repo"}:
        assert ("absent" if damage == "absent" else "leaves the repo") in results.unusable[file]
    for name in FILES.values():
        before, after = getattr(whole, name), getattr(results, name)
        if name != FILES[file]:
            assert bool(after), name
        elif name == "vectors":
            assert set(after) == set(before) - {("tiny", 1)}
        else:
            assert not after


def test_a_pair_without_a_reply_that_the_study_names_is_bad(tmp_path):
    place = build(tmp_path)
    place.edit_line("contrast_pairs.jsonl", 2, lambda pair: (pair.pop("calm"), pair.update(other="x")))
    results = place.results()

    assert results.pairs is None
    assert results.unusable == {"contrast_pairs.jsonl": "line 2: the pair has no 'calm'"}


def test_the_reason_names_the_line_and_the_field(tmp_path):
    place = build(tmp_path)
    place.edit_line("sweep_tiny.jsonl", 4, lambda row: row.update(ppl=-1))

    assert place.results().unusable["sweep_tiny.jsonl"].startswith("line 4: ppl: ")


def test_the_published_sweeps_load(upstream):
    for name, layers in {"qwen_small": 5, "qwen_large": 5, "qwen_xlarge": 3}.items():
        sweep = read_sweep(upstream / "dataset", name)
        values = [row.value for row in read_jsonl(upstream / "dataset" / sweep.file, schema="sweep_row")]

        assert len({row.cell for row in sweep.rows}) == len(sweep.rows) == len(values)
        assert len({row.cell.layer for row in sweep.rows}) == layers
        for row, value in zip(sweep.rows, values, strict=True):
            assert (row.cell.label, row.cell.layer, row.cell.coef) == ("steered", value["layer"], value["coef"])
            assert (row.ppl_ratio, row.collapsed) == (value["ppl_ratio"], value["collapsed"])
            # Collapsed cells were published with null in place of texts.
            assert len(row.generations) == (0 if row.collapsed else len(value["generations"]))
            assert row.interval is row.sentence_nll is None


def test_extending_the_published_rows_keeps_every_field(upstream, tmp_path):
    sweep = read_sweep(upstream / "dataset", "qwen_xlarge")
    write_sweep(tmp_path, "qwen_xlarge", sweep.rows)
    before = (upstream / "dataset" / sweep.file).read_text(encoding="utf-8").splitlines()
    after = (tmp_path / sweep.file).read_text(encoding="utf-8").splitlines()

    for old, new in zip(map(json.loads, before), map(json.loads, after), strict=True):
        if old["collapsed"]:
            old["generations"] = []
        assert {key: new[key] for key in old} == old


def test_a_table_that_is_a_link_out_of_the_repo_has_no_rows(tmp_path):
    place = build(tmp_path / "repos")
    (place.data / "eval_prompts.jsonl").rename(tmp_path / "elsewhere")
    (place.data / "eval_prompts.jsonl").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FormatError) as refused:
        read_table(place.data, "eval_prompts.jsonl", schema="eval_prompt")
    assert (refused.value.file, refused.value.where) == ("eval_prompts.jsonl", "")


def test_environments_are_checked(tmp_path):
    place = build(tmp_path)
    document = json.loads((place.data / "environment.json").read_text())
    del document["models"]["tiny"]["threads"]
    (place.data / "environment.json").write_text(json.dumps(document))

    assert "threads" in place.results().unusable["environment.json"]


def test_reading_an_absent_sweep_says_so(tmp_path):
    with pytest.raises(FormatError, match=r"sweep_tiny\.jsonl: the file is absent"):
        read_sweep(tmp_path, "tiny")
