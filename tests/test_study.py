from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import claim, document, text_of, write_study

from steer_eval.claims.claim import Selector
from steer_eval.errors import FormatError
from steer_eval.model_reference import HubSource, PypiSource
from steer_eval.sae.text import HubText
from steer_eval.study import load_study

ROOT = Path(__file__).parents[1]


def test_the_packaged_study_loads():
    path = ROOT / "artifacts" / "smollm2-135m-mature-anger" / "study.yaml"
    study = load_study(path)
    document = yaml.safe_load(path.read_text(encoding="utf-8"))

    assert study.name == "smollm2-135m-mature-anger"
    assert isinstance(study.models["smollm2"].source, PypiSource)
    assert study.sweep.layers == study.extraction.layers == tuple(document["extraction"]["layers"])
    assert study.sweep.coefficients == tuple(document["sweep"]["coefficients"])
    assert {claim.id for claim in study.claims} == {claim["id"] for claim in document["claims"]}
    assert study.text == path.read_text(encoding="utf-8")


def test_every_part_arrives(tmp_path):
    value = document(
        claims=[claim("perplexity", "1.10", identity="first", model="tiny", label="random", layer=1, coef=2)]
    )
    value["sweep"]["layers"] = [3]
    study = load_study(write_study(tmp_path, value))

    assert study.models["tiny"].source == HubSource("lab/tiny-base", "main")
    assert study.models["tiny"].dtype == "float32"
    assert (study.extraction.layers, study.sweep.layers) == ((1, 3), (3,))
    assert study.sweep.coefficients == (-1.0, 1.0, 2.0, 4.0)
    assert all(type(coef) is float for coef in study.sweep.coefficients)
    assert (study.sweep.random_seed, study.sweep.random_text_coefficients) == (7, (2.0,))
    assert (study.sweep.anchor, study.sweep.max_new_tokens, study.sweep.collapse_ratio) == ("Be firm.", 80, 3.0)
    assert (study.perplexity.window, study.perplexity.beyond, study.perplexity.resamples) == (512, "windows", 200)
    assert study.tolerances["perplexity_ratio"].drifted == 0.05
    [only] = study.claims
    assert (only.id, only.measure, only.expected.text) == ("first", "perplexity", "1.10")
    assert only.select == Selector("tiny", "random", 1, 2)


@pytest.mark.parametrize(
    ("written", "text", "rounding"),
    [
        ("'1.10'", "1.10", 0.005),
        ("1.5", "1.5", 0.05),
        ("0.00001", "0.00001", 5e-6),
        ("40", "40", 0.5),
        ("'~16'", "~16", 1.6),
    ],
)
def test_numbers_keep_the_precision_they_are_written_with(tmp_path, written, text, rounding):
    value = text_of(document(claims=[claim("perplexity", "PLACEHOLDER")])).replace("PLACEHOLDER", written)
    (tmp_path / "study.yaml").write_text(value)
    [only] = load_study(tmp_path / "study.yaml").claims

    assert only.expected.text == text
    assert only.expected.rounding == pytest.approx(rounding)


def _set(*place, to):
    def change(value):
        for part in place[:-1]:
            value = value[part]
        value[place[-1]] = to

    return change


CONTRADICTIONS = {
    "unknown model in a claim": (
        _set("claims", to=[claim("perplexity", "1.1", model="huge")]),
        "claims[0].select.model",
        "no such model",
    ),
    "duplicate ids": (
        _set("claims", to=[claim("perplexity", "1.1"), claim("perplexity", "1.2")]),
        "claims[1].id",
        "'the-claim' stands twice",
    ),
    "swept layer without vector": (_set("sweep", "layers", to=[1, 2]), "sweep.layers", "no vector"),
    "text of a coefficient that is not swept": (
        _set("sweep", "controls", "random", "text_coefficients", to=[9]),
        "sweep.controls.random.text_coefficients",
        "not swept",
    ),
    "drifted below reproduced": (
        _set("tolerances", "perplexity", to={"scale": "relative", "reproduced": 0.2, "drifted": 0.1}),
        "tolerances.perplexity.drifted",
        "below",
    ),
    "template that can't be read": (
        _set("models", "tiny", "chat_template", to="{{ bos }}\n{% for turn in messages %}"),
        "models.tiny.chat_template",
        "line 2: Unexpected end of template",
    ),
    "template with a number of thousands of digits": (
        _set("models", "tiny", "chat_template", to="{{ " + "9" * 5000 + " }}"),
        "models.tiny.chat_template",
        "Exceeds the limit",
    ),
    "template that is nested without end": (
        _set("models", "tiny", "chat_template", to="{{ " + "(" * 20000),
        "models.tiny.chat_template",
        "nested too deeply",
    ),
    "unknown key": (_set("sweep", "colour", to="red"), "sweep", "'colour' was unexpected"),
    "seed that no generator takes": (
        _set("perplexity", "seed", to=2**62),
        "perplexity.seed",
        "greater than the maximum",
    ),
    "path that leaves the repo": (
        _set("extraction", "pairs", to="../pairs.jsonl"),
        "extraction.pairs",
        "does not match",
    ),
}


TEXT = {"files": ["a.txt"]}
SAE = {"model": "tiny", "layer": 1, "features": 8, "k": 2, "text": TEXT, "tokens": 100}
HERE, THERE = {"model": "tiny", "layer": 1}, {"model": "tiny", "layer": 2}
TRANSFER = {"source": HERE, "target": THERE, "text": TEXT, "coefficient": 2}


@pytest.mark.parametrize(
    ("part", "entry", "where", "message", "fix"),
    [
        ("saes", {"k": 9}, "saes.0.k", "k 9 is larger than the number of features, 8", "take a smaller k"),
        ("saes", {"model": "huge"}, "saes.0.model", "no such model: huge", "take one of tiny"),
        (
            "saes",
            {"table": {"coefficient": 3}},
            "saes.0.table.coefficient",
            "the sweep has no such coefficient: 3",
            "take one of 2, 4",
        ),
        ("saes", {"layer": 7, "table": {"coefficient": 2}}, "saes.0.table", "at the SAE's layer", "take one of 1, 2"),
        (
            "transfers",
            {"source": {"model": "huge", "layer": 1}},
            "transfers.0.source.model",
            "huge",
            "take one of tiny",
        ),
        (
            "transfers",
            {"target": {"model": "tiny", "layer": 7}},
            "transfers.0.target.layer",
            "tiny has no vector there: 7",
            "take one of 1, 2",
        ),
        ("transfers", {"target": HERE}, "transfers.0", "to where it is from: tiny_L1_to_tiny_L1", "another model or"),
        ("transfers", {"coefficient": 0}, "transfers[0].coefficient", "0", "carried vectors are tried; not 0"),
    ],
)
def test_what_a_study_does_not_have_is_refused_with_what_it_has(tmp_path, part, entry, where, message, fix):
    study = deepcopy(document())
    for place in ("extraction", "sweep"):
        study[place]["layers"] = [1, 2]
    study["sweep"]["coefficients"] = [2, 4]
    study["sweep"]["controls"]["random"]["text_coefficients"] = [2]
    study["claims"] = []
    study[part] = [deepcopy({"saes": SAE, "transfers": TRANSFER}[part])]
    assert load_study(write_study(tmp_path, study))
    study[part] = deepcopy([{**study[part][0], **entry}])
    with pytest.raises(FormatError) as caught:
        load_study(write_study(tmp_path, study))

    assert caught.value.where == where
    assert message in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    "template",
    [
        "{% for turn in messages %}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{{ messages | tojson }}{{ raise_exception('no') }}",
        "{{ 9**9**9**9 }}",
    ],
)
def test_templates_in_the_dialect_of_transformers_are_read_and_not_run(tmp_path, template):
    value = deepcopy(document())
    value["models"]["tiny"]["chat_template"] = template
    assert load_study(write_study(tmp_path, value)).models["tiny"].chat_template == template


@pytest.mark.parametrize(("change", "where", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_named(tmp_path, change, where, message):
    value = deepcopy(document())
    change(value)

    with pytest.raises(FormatError) as caught:
        load_study(write_study(tmp_path, value), name="repo/study.yaml")

    assert (caught.value.file, caught.value.where) == ("repo/study.yaml", where)
    assert message in str(caught.value)
    assert caught.value.fix


def test_a_text_at_a_branch_is_refused_and_it_says_what_to_write(tmp_path):
    text = {"hub": {"id": "lab/corpus", "revision": "main"}}
    plan = {"model": "tiny", "layer": 1, "features": 8, "k": 2, "text": text, "tokens": 100}
    study = {**document(), "saes": [plan]}

    with pytest.raises(FormatError) as caught:
        load_study(write_study(tmp_path, study))

    assert caught.value.where == "saes[0].text.hub.revision"
    assert "huggingface_hub.dataset_info(ID).sha" in caught.value.fix
    text["hub"]["revision"] = "0123456789" * 4
    assert load_study(write_study(tmp_path, study)).saes[0].text == HubText("lab/corpus", "0123456789" * 4)


@pytest.mark.parametrize("place", [(), ("table",)])
def test_the_largest_seed_of_an_sae(tmp_path, place):
    plan = {"model": "tiny", "layer": 1, "features": 8, "k": 2, "text": {"files": ["a.txt"]}, "tokens": 100}
    plan["table"] = {"coefficient": 2}
    study = {**document(), "saes": [plan]}
    seeded = plan["table"] if place else plan
    seeded["seed"] = 2**32

    with pytest.raises(FormatError, match="greater than the maximum") as caught:
        load_study(write_study(tmp_path, study))

    assert caught.value.where == ".".join(["saes[0]", *place, "seed"])
    seeded["seed"] -= 1
    assert load_study(write_study(tmp_path, study)).saes


GOOD = text_of(document())


def test_yaml_that_is_not_strict_is_named_with_its_line(tmp_path):
    (tmp_path / "study.yaml").write_text(f"{GOOD}name: other\n")

    with pytest.raises(FormatError, match="'name' stands twice") as caught:
        load_study(tmp_path / "study.yaml", name="repo/study.yaml")

    assert (caught.value.file, caught.value.where) == ("repo/study.yaml", f"line {GOOD.count(chr(10)) + 1}")


def test_an_empty_file_is_no_study(tmp_path):
    (tmp_path / "study.yaml").write_text("# nothing yet\n")

    with pytest.raises(FormatError, match="the file is empty"):
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _path: None, "absent"),
        (lambda path: path.mkdir(), "can't be read"),
        (lambda path: path.write_bytes(b"schema: \xff"), "not UTF-8"),
        (lambda path: path.write_bytes(b"#" * (4 * 2**20 + 1)), "more than the"),
    ],
    ids=["absent", "folder", "not UTF-8", "too large"],
)
def test_what_is_no_text_file_is_named(tmp_path, make, message):
    make(tmp_path / "study.yaml")

    with pytest.raises(FormatError, match=message) as caught:
        load_study(tmp_path / "study.yaml", name="study.yaml")

    assert caught.value.file == "study.yaml"
    assert bool(caught.value.fix) is (message in {"absent", "not UTF-8"})


@settings(max_examples=80, deadline=None)
@given(
    st.binary(max_size=60)
    | st.text("-:?!&*[]{}#'\"|>%@`ab01.\n ", max_size=60).map(str.encode)
    | st.tuples(st.integers(0, len(GOOD) - 1), st.sampled_from("\n:-[]{}'x9")).map(
        lambda change: (GOOD[: change[0]] + change[1] + GOOD[change[0] + 1 :]).encode()
    )
)
def test_arbitrary_bytes_are_studies_or_format_errors(content):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_bytes(content)
        try:
            study = load_study(path)
        except FormatError:
            return
        assert set(study.sweep.layers) <= set(study.extraction.layers)
