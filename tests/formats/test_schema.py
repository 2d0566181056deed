"""Every schema has an example that it accepts and counter-examples that it must reject, by name of the field."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from studies import HEX, build, claim, document, environment, provenance

from steer_eval.errors import FormatError
from steer_eval.formats import schema
from steer_eval.resources import folder

FINDING = {
    "rule": "card-differs",
    "severity": "error",
    "file": "README.md",
    "where": "line 3",
    "expected": 1.5,
    "observed": None,
    "message": "differs",
    "fix": "",
}
CHECK = {
    "evidence": "published data",
    "observed": 1.5,
    "tolerance": "±0.005",
    "verdict": "reproduced",
    "reason": "",
    "file": "sweep_tiny.jsonl",
    "where": "line 1",
}
VERDICT = {
    "id": "one",
    "claim": "a claim",
    "source": {"file": "study.yaml", "line": None},
    "measure": "perplexity",
    "expected": "1.50",
    "verdict": "reproduced",
    "checks": [CHECK],
}
SWEEP_ROW = {
    "layer": 6,
    "coef": -2.0,
    "base_ppl": 29.0,
    "ppl": 39.0,
    "ppl_ratio": 1.35,
    "collapsed": False,
    "generations": [{"prompt_idx": 0, "prompt": "p", "gen": "g"}],
}
LEVEL = {"requested": "rerun", "reached": "recompute"}

EXAMPLES: dict[str, Any] = {
    "contrast_pair": {"scenario": "s", "angry": "a", "calm": "c"},
    "environment": {"schema": "steer-eval/environment/1", "models": {"tiny": environment()}},
    "eval_prompt": {"scenario": "s", "category": "c"},
    "finding": FINDING,
    "manifest": {
        "schema": "steer-eval/manifest/1",
        "files": [{"path": "README.md", "sha256": HEX, "size": 0, "kind": "card"}],
    },
    "report": {
        "schema": "steer-eval/report/1",
        "repo": "lab/persona",
        "data": None,
        "revision": None,
        "level": LEVEL,
        "findings": [FINDING],
        "verdicts": [VERDICT],
        "run": {"folder": "runs/x", "environment": None, "recorded_environment": None, "same_machine_class": None},
    },
    "study": document(claims=[claim("perplexity", "1.50", model="tiny", layer=1, coef=2)]),
    "sweep_row": SWEEP_ROW,
    "validation": {"schema": "steer-eval/validate/1", "target": "x", "findings": [FINDING], "checked": ["README.md"]},
    "vector": {
        "__metadata__": provenance("tiny", 1, 5.0),
        "vector": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    },
    "verdict": VERDICT,
}

ABSENT = object()
# For each schema: the place that is changed, its new value, and what the message must name.
COUNTER_EXAMPLES: dict[str, list[tuple[list[Any], Any, str]]] = {
    "contrast_pair": [
        (["scenario"], ABSENT, "scenario"),
        (["calm"], "", "calm"),
        (["calm"], ["c"], "calm"),
        (["angry"], ABSENT, "enough properties"),
    ],
    "environment": [
        (["models", "tiny", "threads"], "two", "models.tiny.threads"),
        (["models", "tiny", "machine_class"], ABSENT, "machine_class"),
        (["schema"], "steer-eval/environment/2", "schema"),
        (["models", "tiny", "versions", "torch"], 2.13, "models.tiny.versions.torch"),
    ],
    "eval_prompt": [(["scenario"], ABSENT, "scenario"), (["scenario"], "", "scenario"), (["more"], None, "more")],
    "finding": [
        (["severity"], "fatal", "severity"),
        (["rule"], "Card Differs", "rule"),
        (["fix"], ABSENT, "fix"),
        (["line"], 3, "line"),
    ],
    "manifest": [
        (["files", 0, "sha256"], "abc", "files[0].sha256"),
        (["files", 0, "size"], -1, "files[0].size"),
        (["files", 0, "size"], 1.0, "files[0].size"),
        (["files", 0, "path"], "../x", "files[0].path"),
        (["files", 0, "kind"], "song", "files[0].kind"),
    ],
    "report": [
        (["level", "reached"], "publish", "level.reached"),
        (["findings", 0, "severity"], "fatal", "findings[0].severity"),
        (["verdicts", 0, "checks", 0, "verdict"], "maybe", "verdicts[0].checks[0].verdict"),
        (["run", "folder"], ABSENT, "folder"),
        (["data"], 3, "data"),
    ],
    "study": [
        (["title"], ABSENT, "title"),
        (["colour"], "red", "colour"),
        (["schema"], "steer-eval/study/9", "schema"),
        (["data"], "no-namespace", "data"),
        (["data"], "../persona-data", "data"),
        (["extraction", "pairs"], "../../etc/passwd", "extraction.pairs"),
        (["extraction", "pairs"], "/etc/passwd", "extraction.pairs"),
        (["sweep", "prompts"], "a/../../b.jsonl", "sweep.prompts"),
        (["perplexity", "corpus"], "..", "perplexity.corpus"),
        (["extraction", "layers"], [1, 1], "extraction.layers"),
        (["extraction", "layers"], [1.0], "extraction.layers[0]"),
        (["sweep", "coefficients"], [], "sweep.coefficients"),
        (["sweep", "collapse_ratio"], 1.0, "sweep.collapse_ratio"),
        (["perplexity", "beyond"], "wrap", "perplexity.beyond"),
        (["perplexity", "confidence"], 1, "perplexity.confidence"),
        (["tolerances", "perplexity", "scale"], "log", "tolerances.perplexity.scale"),
        (["tolerances", "perplexity", "drifted"], -0.1, "tolerances.perplexity.drifted"),
        (["models", "tiny", "source", "local"], {"path": "x"}, "models.tiny.source"),
        (["claims", 0, "expected"], "about 3", "claims[0].expected"),
        (["claims", 0, "expected"], None, "claims[0].expected"),
        (["claims", 0, "select", "label"], "best", "claims[0].select.label"),
        (["claims", 0, "select", "prompt"], 3, "claims[0].select"),
    ],
    "sweep_row": [
        (["ppl_ratio"], ABSENT, "ppl_ratio"),
        (["ppl"], 0, "ppl"),
        (["ppl"], "39.0", "ppl"),
        (["layer"], -1, "layer"),
        (["layer"], 6.0, "layer"),
        (["label"], "best", "label"),
        (["collapsed"], 0, "collapsed"),
        (["ppl_ratio_interval"], [1.0], "ppl_ratio_interval"),
        (["sentence_nll"], [], "sentence_nll"),
        (["sentence_nll"], [1e300], "sentence_nll[0]"),
        (["sentence_tokens"], [0], "sentence_tokens[0]"),
        (["generations", 0, "prompt"], ABSENT, "generations[0]"),
        (["generations", 0, "prompt_idx"], 0.0, "generations[0].prompt_idx"),
        (["generations", 0, "stop"], "bored", "generations[0].stop"),
    ],
    "validation": [(["findings", 0, "rule"], "A b", "findings[0].rule"), (["checked"], "all", "checked")],
    "vector": [
        (["vector", "dtype"], "F16", "vector.dtype"),
        (["vector", "shape"], [2, 2], "vector.shape"),
        (["__metadata__", "norm"], "1.2.3", "__metadata__.norm"),
        (["__metadata__", "layer"], "-1", "__metadata__.layer"),
        (["__metadata__", "weights_sha256"], ABSENT, "weights_sha256"),
        (["other"], {}, "other"),
    ],
    "verdict": [
        (["verdict"], "fine", "verdict"),
        (["checks"], [], "checks"),
        (["checks", 0, "evidence"], "hearsay", "checks[0].evidence"),
        (["expected"], 1.5, "expected"),
        (["source", "line"], "3", "source.line"),
    ],
}
NAMES = sorted(path.name.removesuffix(".schema.json") for path in folder("schemas").iterdir())


def changed(value: Any, place: list[Any], new: Any) -> Any:
    value = deepcopy(value)
    inner = value
    for part in place[:-1]:
        inner = inner[part]
    if new is ABSENT:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return value


def test_no_schema_is_without_example_and_counter_example():
    assert NAMES == sorted(EXAMPLES) == sorted(COUNTER_EXAMPLES)
    assert all(COUNTER_EXAMPLES.values())


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_valid_2020_12_and_named_like_its_file(name):
    content = json.loads((folder("schemas") / f"{name}.schema.json").read_text(encoding="utf-8"))

    assert content["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert content["$id"] == name
    assert content["title"]
    Draft202012Validator.check_schema(content)
    assert schema.load_schema(name) == content


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_accepted(name):
    schema.check(EXAMPLES[name], name, file="x")


@pytest.mark.parametrize(
    ("name", "place", "new", "named"),
    [
        pytest.param(name, *case, id=f"{name}-{index}-{case[2]}")
        for name, cases in COUNTER_EXAMPLES.items()
        for index, case in enumerate(cases)
    ],
)
def test_the_counter_example_is_rejected_and_the_field_named(name, place, new, named):
    with pytest.raises(FormatError) as caught:
        schema.check(changed(EXAMPLES[name], place, new), name, file="some/file", where="line 4")

    assert caught.value.file == "some/file"
    assert caught.value.where.startswith("line 4")
    assert named in str(caught.value)
    assert f"schemas/{name}.schema.json" in caught.value.fix


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, [], "text", 3], ids=repr)
def test_what_is_no_object_is_rejected_everywhere(name, value):
    with pytest.raises(FormatError, match="is not of type 'object'"):
        schema.check(value, name, file="x")


@pytest.mark.parametrize("name", NAMES)
def test_every_required_field_is_required(name):
    for field in schema.load_schema(name)["required"]:
        with pytest.raises(FormatError, match=field):
            schema.check(changed(EXAMPLES[name], [field], ABSENT), name, file="x")


def test_messages_stay_short():
    with pytest.raises(FormatError) as caught:
        schema.check({"scenario": ["x" * 10_000]}, "eval_prompt", file="x")

    assert len(str(caught.value)) < 400


def test_what_the_package_writes_satisfies_its_schemas(tmp_path):
    place = build(tmp_path)
    for folder_ in (place.model, place.data):
        schema.check(json.loads((folder_ / "manifest.json").read_text()), "manifest", file="manifest.json")
    schema.check(json.loads((place.data / "environment.json").read_text()), "environment", file="environment.json")
    for line in (place.data / "sweep_tiny.jsonl").read_text().splitlines():
        schema.check(json.loads(line), "sweep_row", file="sweep_tiny.jsonl")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("sweep_qwen_*.jsonl", "sweep_row"),
        ("contrast_pairs.jsonl", "contrast_pair"),
        ("eval_prompts.jsonl", "eval_prompt"),
    ],
)
def test_the_published_form_is_extended_never_renamed(upstream, pattern, name):
    files = sorted((upstream / "dataset").glob(pattern))
    assert files
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            schema.check(json.loads(line), name, file=file.name, where=f"line {number}")
