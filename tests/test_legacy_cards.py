"""Cards of studies without `study.yaml`: every number comes from the files, and what the cards promise works."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import legacy
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from legacy import Legacy
from tiny_models import tiny_tokenizer

from steer_eval.audit import audit_text
from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError
from steer_eval.legacy.agreement import agreements, spearman
from steer_eval.legacy.best import Judgement, Score
from steer_eval.legacy.identity import Asked
from steer_eval.legacy.limits import limits
from steer_eval.legacy.study import LegacyStudy
from steer_eval.legacy.tables import tables
from steer_eval.legacy_cards import MARK, check_legacy, open_legacy, render_data_repo, render_model_repo, write_legacy
from steer_eval.repository import Repositories, open_target

CARD = "README.md"


@dataclass(frozen=True)
class Opened:
    repositories: Repositories
    study: LegacyStudy

    @property
    def model_card(self) -> str:
        return render_model_repo(self.study)[CARD]

    @property
    def data_card(self) -> str:
        return render_data_repo(self.study)[CARD]


def opened(model: Path, data: Path, asked: Asked | None = None) -> Opened:
    repositories = open_target(str(model), str(data))
    assert isinstance(repositories, Repositories)
    return Opened(repositories, open_legacy(repositories, asked or Asked()))


@pytest.fixture
def place(tmp_path) -> Legacy:
    return legacy.build(tmp_path)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Opened:
    where = legacy.build(tmp_path_factory.mktemp("legacy"))
    return opened(where.model, where.data)


@pytest.fixture(scope="module")
def published(upstream) -> Opened:
    return opened(upstream / "model", upstream / "dataset")


@pytest.fixture(params=["synthetic", "published"])
def each(request) -> Opened:
    return request.getfixturevalue(request.param)


def table(card: str, *header: str) -> list[list[str]]:
    """Rows of the first table with a header that begins so."""
    lines = card.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| " + " | ".join(header)))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(card: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", card, re.MULTILINE | re.DOTALL)


# What is said


def test_no_number_of_a_card_is_contradicted_and_nearly_all_are_understood(each):
    for text in (each.model_card, each.data_card):
        audit = audit_text(text, CARD, each.study.inventory, each.study.found)
        words = [place.verdict.word for place in audit.places]

        assert "contradicted" not in words
        assert words.count("reproduced") > 30
        assert audit.coverage.understood >= 0.8 * audit.coverage.numbers


def test_cards_are_the_same_wherever_the_repos_stand(place, tmp_path):
    elsewhere = legacy.build(tmp_path / "elsewhere")
    first, second = opened(place.model, place.data), opened(elsewhere.model, elsewhere.data)

    assert render_model_repo(first.study) == render_model_repo(second.study)
    assert render_data_repo(first.study) == render_data_repo(second.study)
    assert str(tmp_path) not in first.model_card + first.data_card


def test_no_sentence_of_the_present_card_is_taken_over(each, request):
    present = each.study.card
    words = [line.strip() for line in present.splitlines() if len(line.split()) > 5 and "caa.pt" not in line]
    assert words

    for text in (each.model_card, each.data_card):
        assert not [line for line in words if line in text]


def test_a_changed_number_of_the_data_changes_the_card(place):
    before = opened(place.model, place.data).model_card

    def change(row: dict[str, Any]) -> None:
        row["ppl"] *= 1.01
        row["ppl_ratio"] = row["ppl"] / row["base_ppl"]

    place.edit_line("data/sweep_fox_small.jsonl", 2, change)
    after = opened(place.model, place.data).model_card
    row = json.loads(place.path("data/sweep_fox_small.jsonl").read_text().splitlines()[1])

    changed = set(after.splitlines()) - set(before.splitlines())
    assert any(f"{row['ppl']:.3f} | {row['ppl_ratio']:.3f}" in line for line in changed)


def test_every_file_stands_in_the_inventory_with_its_size(each):
    for role, text in (("model", each.model_card), ("dataset", each.data_card)):
        root = next(root for root in each.study.inventory.roots if root.role == role)
        shown = {row[0].strip("`"): row[2] for row in table(text, "file", "what", "size")}
        files = {
            path.relative_to(root.folder).as_posix(): f"{path.stat().st_size:,} bytes"
            for path in root.folder.rglob("*")
            if path.is_file() and path.name != CARD
        }

        assert shown == files


def test_norms_and_widths_are_those_of_the_tensors(synthetic):
    rows = table(synthetic.model_card, "model", "layer", "norm", "width")

    expected = {
        (legacy.BASE_MODEL[model], str(layer)): (
            f"{np.linalg.norm(legacy.direction(model, layer).double().numpy()):.4f}",
            str(legacy.WIDTH[model]),
        )
        for model in legacy.WIDTH
        for layer in legacy.LAYERS
    }
    assert {(row[0], row[1]): (row[2], row[3]) for row in rows} == expected


def test_feature_tables_state_coefficient_prompts_and_shares(synthetic):
    text = synthetic.model_card

    assert "at coefficient +1, a push of" in text
    assert "on 20 prompts" in text
    first = table(text, "feature", "base mean")[0]
    row = max(legacy.features("small")["top_features"], key=lambda each: abs(each["delta"]))
    assert first[0] == str(row["feature_id"])
    assert first[3] == f"{row['delta']:+.4f}"
    assert first[5:] == [f"{100 * row['base_freq']:.1f}%", f"{100 * row['steered_freq']:.1f}%"]
    assert "can't be compared" not in text


def test_feature_tables_of_unlike_coefficients_come_with_a_warning(place):
    place.edit("model/saes/fox_small_L5_features.json", lambda value: value.update(coef=2.5))

    assert "measured under different coefficients" in opened(place.model, place.data).model_card


def test_heat_maps_show_every_ratio(synthetic):
    svg = render_model_repo(synthetic.study)["figures/perplexity_fox_small.svg"]
    picture = ElementTree.fromstring(svg)  # noqa: S314 - it was drawn here
    labels = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]

    for layer in legacy.LAYERS:
        for coefficient in legacy.COEFFICIENTS:
            ratio = legacy.ratio("small", layer, coefficient)
            assert f"{ratio:.2f}{'†' if ratio > 3 else ''}" in labels
    assert "Perplexity ratio, den/fox-0.5B" in labels


# Best cells and agreement


def score(layer: int, coef: float, margin: float, *, imputed: bool = False) -> Score:
    values = {"mature_anger": 1 + margin, "juvenile_rage": 1.0, "coherence": 4.0, "margin": margin}
    return Score(layer, coef, values, 1.1, imputed)


def test_of_tied_cells_the_weakest_then_the_lowest_then_the_positive_comes_first():
    tied = (score(9, 1.0, 2.0), score(5, -1.0, 2.0), score(5, 1.0, 2.0), score(2, 2.5, 2.0), score(2, 1.0, 1.5))

    best = Judgement("fox", "owl", tied).best
    assert [each.cell for each in best] == [(5, 1.0), (5, -1.0), (9, 1.0), (2, 2.5)]
    assert Judgement("fox", "owl", tuple(reversed(tied))).best == best


def test_scores_of_cells_without_text_are_never_the_best():
    judgement = Judgement("fox", "owl", (score(2, 1.0, 1.0), score(5, 6.0, 3.0, imputed=True)))

    assert [each.cell for each in judgement.best] == [(2, 1.0)]
    assert Judgement("fox", "owl", judgement.scores[1:]).best == ()


def test_the_published_best_cells_of_both_judges(published):
    rows = {(row[0], row[1]): row[2:] for row in table(published.model_card, "model", "judge", "best cell")}

    assert rows == {
        ("Qwen/Qwen3.5-0.8B", "deepseek"): ["L=6 c=+1", "1.0", "1.0", "4.0", "0.0", "1.05x"],
        ("Qwen/Qwen3.5-0.8B", "qwen"): ["L=18 c=+2", "2.5", "1.5", "4.0", "+1.0", "1.35x"],
        ("Qwen/Qwen3.5-2B", "deepseek"): ["L=14 c=+1", "3.5", "1.0", "5.0", "+2.5", "1.13x"],
        ("Qwen/Qwen3.5-2B", "qwen"): ["L=14 c=+2", "3.5", "1.5", "3.5", "+2.0", "1.55x"],
        ("Qwen/Qwen3.5-4B", "deepseek"): ["L=13 c=+1", "4.5", "1.0", "5.0", "+3.5", "1.11x"],
    }
    ties = {judgement.model: len(judgement.best) for judgement in limits(published.study).ties}
    assert ties == {"qwen_small": 17, "qwen_xlarge": 4}
    assert "L=13 c=+1, L=18 c=+1, L=13 c=+2, L=23 c=+2" in published.model_card


def test_the_published_judges_agree_as_far_as_they_do(published):
    found = {each.model: each for each in agreements(published.study.judgements)}

    assert set(found) == {"qwen_large", "qwen_small"}
    means = {axis.axis: (round(axis.mean, 3), axis.largest) for axis in found["qwen_large"].axes}
    assert means["mature_anger"] == (-0.474, 1.5)
    assert means["juvenile_rage"] == (-0.158, 1.5)
    assert means["coherence"] == (-0.132, 1.5)
    means = {axis.axis: (round(axis.mean, 3), axis.largest) for axis in found["qwen_small"].axes}
    assert (means["juvenile_rage"], means["coherence"]) == ((-0.316, 3.0), (0.026, 2.5))
    assert found["qwen_large"].cells == 19
    assert found["qwen_large"].common == ()
    assert found["qwen_small"].common == ((18, 2.0),)


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    for _ in range(20):
        first, second = rng.integers(2, 9, 17) / 2, rng.integers(2, 9, 17) / 2
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert spearman(np.ones(5), np.arange(5.0)) is None


def test_agreement_is_taken_on_cells_that_both_judged_with_text():
    first = Judgement("fox", "hare", (score(2, 1.0, 1.0), score(5, 1.0, 3.0), score(9, 1.0, 4.0, imputed=True)))
    second = Judgement("fox", "owl", (score(2, 1.0, 2.0), score(5, 1.0, 3.0), score(9, 1.0, 1.0)))

    (agreement,) = agreements([first, second])
    margin = next(axis for axis in agreement.axes if axis.axis == "margin")
    assert (agreement.cells, margin.mean, margin.largest, margin.equal) == (2, -0.5, 1.0, 1)
    assert margin.spearman == pytest.approx(1.0)
    assert agreement.common == ((5, 1.0),)


# Limitations


def test_limits_of_the_published_study(published):
    found = limits(published.study)

    assert set(found.no_zero) == set(found.no_random) == {"qwen_large", "qwen_small", "qwen_xlarge"}
    assert found.no_negative == ("qwen_xlarge",)
    assert not found.no_anchor
    assert found.prompts == (10, 40)
    assert found.unjudged == (("qwen", "qwen_xlarge"),)
    assert found.no_features == ("qwen_xlarge",)
    assert set(found.no_sae) == {"Qwen/Qwen3.5-2B", "Qwen/Qwen3.5-0.8B"}
    assert found.no_map
    assert found.absent == (
        "saes/qwen_large_L14_sae.pt",
        "saes/qwen_small_L14_sae.pt",
        "vectors/transfer_map_large_to_small.pt",
    )
    incoherent = {
        (each.judgement.model, each.judgement.judge): [s.cell for s in each.cells] for each in found.incoherent
    }
    assert incoherent["qwen_large", "deepseek"] == [(6, 4.0), (10, 4.0), (18, 4.0)]
    assert incoherent["qwen_small", "deepseek"] == [(6, 4.0), (10, 2.0), (10, 4.0), (18, 4.0), (22, 4.0)]
    assert incoherent["qwen_xlarge", "deepseek"] == [(13, 4.0), (23, 4.0)]
    assert [(each.model, each.judge, each.best.cell) for each in found.coefficients] == [
        ("qwen_large", "deepseek", (14, 1.0))
    ]


def test_limits_follow_from_the_files(place):
    found = limits(opened(place.model, place.data).study)
    assert (found.absent, found.no_map, found.no_sae, found.no_negative) == ((), False, (), ())
    assert found.no_zero

    rows = [json.loads(line) for line in place.path("data/sweep_fox_large.jsonl").read_text().splitlines()]
    zero = {**rows[0], "coef": 0.0, "ppl": rows[0]["base_ppl"], "ppl_ratio": 1.0, "label": "zero"}
    noise = {**rows[0], "label": "random"}
    with place.path("data/sweep_fox_large.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in (zero, noise))
    place.path("model/vectors/transfer_map_large_to_small.pt").unlink()
    place.path("model/saes/fox_large_L5_sae.pt").unlink()
    place.path("data/anchor_eval.jsonl").unlink()
    place.path("data/judge_hare_small.jsonl").unlink()

    found = limits(opened(place.model, place.data).study)
    assert found.no_zero == found.no_random == ("fox_small",)
    assert found.no_map
    assert found.no_anchor
    assert found.no_sae == (legacy.BASE_MODEL["large"],)
    assert found.unjudged == (("hare", "fox_small"),)
    assert found.absent == ("saes/fox_large_L5_sae.pt", "vectors/transfer_map_large_to_small.pt")


def test_findings_are_listed_without_the_places_of_this_machine(place):
    place.edit_torch("model/vectors/fox_small_L2_caa.pt", lambda value: value.update(norm=99.0))
    text = opened(place.model, place.data).model_card

    assert ["`vector-norm`", "error"] in [row[:2] for row in table(text, "rule", "severity")]
    assert re.search(r"^error: vectors/fox_small_L2_caa\.pt, norm: .* \[vector-norm\]$", text, re.MULTILINE)
    checked = {row[0]: row[1] for row in table(text, "checked", "found")}
    assert next(found for what, found in checked.items() if what.startswith("norm, layer")) == "see the limitations"
    assert next(found for what, found in checked.items() if what.startswith("summaries")) == "it holds"


def test_what_strangers_write_stays_in_its_place(place):
    hostile = "x | y\n# Heading\n```"
    place.edit_line("data/judge_owl_transfer.jsonl", 2, lambda row: row.update(label=hostile))
    place.edit_torch("model/vectors/fox_small_L2_caa.pt", lambda value: value.update(model="den/evil\n---\n# Title"))
    text = opened(place.model, place.data).model_card

    assert "\n# Heading" not in text
    assert "\n# Title" not in text
    assert len([line for line in text.splitlines() if line.startswith("```")]) % 2 == 0


# Front matter


def test_the_hub_reads_back_what_was_written(each):
    from huggingface_hub import DatasetCard, ModelCard

    from steer_eval.legacy.front_matter import eval_results

    data = ModelCard(each.model_card).data
    results = list(eval_results(each.study))
    # The Hub groups results by table; their order is not theirs to keep.
    assert sorted(map(repr, data.eval_results)) == sorted(map(repr, results))
    assert results
    assert data.model_name == each.study.identity.name
    assert data.base_model_relation == "adapter"
    assert data.datasets == [each.study.identity.data]
    assert data.base_model == [each.study.base_model(model) for model in each.study.models]
    splits = {
        (config["config_name"], split["split"])
        for config in DatasetCard(each.data_card).data.configs
        for split in config["data_files"]
    }
    assert {(result.dataset_config, result.dataset_split) for result in results} <= splits


def test_results_of_the_model_index_are_those_of_the_best_cells(published):
    from steer_eval.legacy.front_matter import eval_results

    found = {
        (result.metric_type, result.dataset_config, result.dataset_split): result.metric_value
        for result in eval_results(published.study)
        if (result.metric_args["layer"], result.metric_args["coef"]) in ((14, 1.0), (13, 1.0))
    }
    assert found == {
        ("perplexity_ratio", "sweep", "qwen_large"): 1.1250915052471215,
        ("margin", "judge_deepseek", "qwen_large"): 2.5,
        ("perplexity_ratio", "sweep", "qwen_xlarge"): 1.1135944865152114,
        ("margin", "judge_deepseek", "qwen_xlarge"): 3.5,
    }


def test_names_come_from_the_cards_or_from_the_options(synthetic, published, place):
    assert synthetic.study.identity.repo == "den/model"
    assert (synthetic.study.identity.data, synthetic.study.identity.license) == ("den/fox-data", "mit")
    assert published.study.identity.repo == "Rachata/qwen35-mature-anger-steering"
    assert published.study.identity.data == "Rachata/qwen35-mature-anger-data"
    assert (published.study.identity.author, published.study.identity.year) == ("Rachata", "2026")

    asked = opened(place.model, place.data, Asked("lab/vectors", "lab/measured", "cc-by-4.0")).model_card
    assert 'hf_hub_download("lab/vectors", ' in asked
    assert "url = {https://huggingface.co/lab/vectors}" in asked
    assert "- lab/measured\n" in asked
    assert "license: cc-by-4.0\n" in asked


@pytest.mark.parametrize("with_vectors", [True, False])
def test_a_rendered_card_says_its_names_itself(place, with_vectors):
    if not with_vectors:
        shutil.rmtree(place.model / "vectors")
    first = opened(place.model, place.data, Asked("lab/vectors", "other/measured", "cc-by-4.0"))
    write_legacy(first.repositories, first.study, out=None, force=True)

    again = opened(place.model, place.data)
    tags = {"tags": (), "data_tags": ()}
    assert replace(again.study.identity, **tags) == replace(first.study.identity, **tags)
    assert check_legacy(again.repositories, again.study) == []


def test_without_any_name_one_is_asked_for(place):
    place.path("model/README.md").write_text("# Vectors\n")

    with pytest.raises(SteerEvalError, match="what the repo is called") as caught:
        opened(place.model, place.data)
    assert "--repo-id" in caught.value.fix
    with pytest.raises(SteerEvalError, match="no Hub id"):
        opened(place.model, place.data, Asked("no id"))


# Code that runs


def cached(repo: str, files: dict[str, Path], *, kind: str = "models") -> Path:
    """Put files into the Hub's cache, as a download would."""
    from huggingface_hub import constants

    commit = "5" * 40
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}--{repo.replace('/', '--')}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    for path, source in files.items():
        target = folder / "snapshots" / commit / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return folder


def tiny_base(folder: Path, width: int) -> dict[str, Path]:
    """A random model of a width, with as many blocks as the synthetic study steers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=320,
            hidden_size=width,
            intermediate_size=16,
            num_hidden_layers=max(legacy.LAYERS) + 1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=None,
            tie_word_embeddings=False,
            initializer_range=0.3,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return {path.name: path for path in folder.iterdir()}


def run(blocks: list[str]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "card", "exec"), names)  # noqa: S102 - running it is the test
    return names


def used(card: str) -> tuple[str, int, float]:
    """Path, layer and coefficient of the vector in the code."""
    path = re.search(r'hf_hub_download\("[^"]+", "([^"]+)"\)', card)
    layer = re.search(r"model\.model\.layers\[(\d+)\]", card)
    coefficient = re.search(r"coefficient=([-+0-9.]+)\)", card)
    assert path
    assert layer
    assert coefficient
    return path[1], int(layer[1]), float(coefficient[1])


def test_the_code_steers_the_model(place, tmp_path, capsys):
    card = opened(place.model, place.data).model_card
    path, layer, coefficient = used(card)
    size = "large" if "large" in path else "small"
    cached("den/model", {path: place.model / path})
    cached(legacy.BASE_MODEL[size], tiny_base(tmp_path / "base", legacy.WIDTH[size]))

    names = run(code(card))

    assert torch.equal(names["vector"], legacy.direction(size, layer))
    assert f"shape: ({legacy.WIDTH[size]},)" in card
    plain = names["model"].generate(**names["inputs"], max_new_tokens=80, do_sample=False)
    assert not torch.equal(plain, names["output"])
    assert capsys.readouterr().out
    hidden = torch.zeros(1, 2, legacy.WIDTH[size])
    assert torch.equal(names["steer"](None, (), (hidden, 1))[0], hidden + coefficient * names["vector"])


def test_the_code_loads_a_converted_vector(place, tmp_path):
    safe = tmp_path / "safe"
    assert CliRunner().invoke(cli, ["convert", str(place.model), "--out", str(safe)]).exit_code in (0, 1)
    card = opened(safe, place.data, Asked(repo="den/safe")).model_card
    path, layer, _ = used(card)
    size = "large" if "large" in path else "small"
    assert path.endswith(".safetensors")
    cached("den/safe", {path: safe / path})

    assert torch.equal(run(code(card)[:1])["vector"], legacy.direction(size, layer))


def test_the_code_of_the_published_study_loads_its_vector(published, upstream):
    card = published.model_card
    path, layer, coefficient = used(card)
    cached(published.study.identity.repo, {path: upstream / "model" / path})

    vector = run(code(card)[:1])["vector"]

    assert vector.norm().item() == pytest.approx(torch.load(upstream / "model" / path, weights_only=True)["norm"])
    assert (layer, coefficient) == (13, 1.0)
    for block in code(card):
        compile(block, "card", "exec")


# Tables that load


def loads(folder: Path, found: Opened) -> None:
    from datasets import load_dataset

    (folder / CARD).write_text(found.data_card, encoding="utf-8")
    for each in found.study.tables:
        loaded = load_dataset(str(folder), each.name)
        assert set(loaded) == set(each.files)
        for split, artifact in each.files.items():
            rows = [row.value for row in artifact.value]
            assert loaded[split].num_rows == len(rows)
            assert set(loaded[split].column_names) == set(each.columns)
            for row, expected in zip(loaded[split], rows, strict=True):
                assert _without_nulls(row) == _without_nulls(expected)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def test_every_table_of_the_published_study_loads(published, upstream, tmp_path):
    for path in (upstream / "dataset").iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    loads(tmp_path, published)

    assert {each.name: set(each.files) for each in published.study.tables if len(each.files) > 1} == {
        "sweep": {"qwen_large", "qwen_small", "qwen_xlarge"},
        "judge_deepseek": {"qwen_large", "qwen_small", "qwen_xlarge"},
        "judge_qwen": {"qwen_large", "qwen_small"},
    }


def test_every_table_of_a_study_loads(place):
    loads(place.data, opened(place.model, place.data))


def test_files_of_one_table_that_differ_load_with_nulls(place):
    path = place.path("data/judge_owl_small.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        del row["margin"]
        row["coef"] = int(row["coef"]) if row["coef"].is_integer() else row["coef"]
        row["remark"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sweep = place.path("data/sweep_fox_large.jsonl")
    collapsed = [json.loads(line) for line in sweep.read_text().splitlines()]
    for row in collapsed:
        row["generations"] = []
    sweep.write_text("".join(json.dumps(row) + "\n" for row in collapsed))
    found = opened(place.model, place.data)

    loads(place.data, found)
    owl = next(each for each in found.study.tables if each.name == "judge_owl")
    assert not owl.alike
    assert owl.columns["margin"] == owl.columns["coef"] == "float64"


def test_files_that_no_type_fits_are_tables_of_their_own(place):
    path = place.path("data/judge_owl_small.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "extra": {"by": "hand"}}) + "\n" for row in rows))
    other = place.path("data/judge_owl_large.jsonl")
    rows = [json.loads(line) for line in other.read_text().splitlines()]
    other.write_text("".join(json.dumps({**row, "extra": "by hand"}) + "\n" for row in rows))
    found = opened(place.model, place.data)

    names = {each.name for each in tables(found.study.inventory, found.study.sweeps)}
    assert {"judge_owl_small", "judge_owl_large"} <= names
    assert "judge_owl" not in names
    loads(place.data, found)


def test_a_damaged_table_is_in_no_configuration(place):
    place.path("data/transfer_eval.jsonl").write_text('{"label": "native"}\n')
    found = opened(place.model, place.data)

    assert "transfer_eval" not in {each.name for each in found.study.tables}
    assert "transfer_eval" in found.data_card
    loads(place.data, found)


# Writing and checking


def test_rendering_again_changes_nothing(place):
    first = opened(place.model, place.data)
    written = write_legacy(first.repositories, first.study, out=None, force=True)
    again = opened(place.model, place.data)

    assert [Path(path).name for path in written if path.endswith(".md")] == [CARD, CARD]
    assert write_legacy(again.repositories, again.study, out=None, force=False) == []
    assert check_legacy(again.repositories, again.study) == []
    # That the features are of another coefficient than the best cell of their layer is told, and stays true.
    assert {finding.rule for finding in again.study.found} <= {"feature-coefficient"}


def test_absent_files_that_a_card_names_stay_named(place):
    place.path("model/saes/fox_large_L5_sae.pt").unlink()
    first = opened(place.model, place.data)
    write_legacy(first.repositories, first.study, out=None, force=True)

    assert limits(opened(place.model, place.data).study).absent == ("saes/fox_large_L5_sae.pt",)


def test_a_card_written_by_hand_is_not_written_over(place):
    found = opened(place.model, place.data)
    before = place.path("model/README.md").read_text()

    with pytest.raises(SteerEvalError, match="was not rendered") as caught:
        write_legacy(found.repositories, found.study, out=None, force=False)
    assert "--force" in caught.value.fix
    assert place.path("model/README.md").read_text() == before
    assert not (place.model / "figures").exists()


def test_a_card_by_hand_in_the_other_repo_keeps_both_as_they_are(place):
    place.path("model/README.md").write_text(f"---\ndatasets: den/fox-data\n---\n{MARK}\n")
    found = opened(place.model, place.data)

    with pytest.raises(SteerEvalError, match="was not rendered"):
        write_legacy(found.repositories, found.study, out=None, force=False)
    assert not (place.model / "figures").exists()


def test_writing_elsewhere_leaves_the_repos_alone(place, tmp_path):
    before = {
        path: path.read_bytes() for root in (place.model, place.data) for path in root.rglob("*") if path.is_file()
    }
    found = opened(place.model, place.data)
    written = write_legacy(found.repositories, found.study, out=tmp_path / "cards", force=False)

    assert {Path(path).relative_to(tmp_path / "cards").as_posix() for path in written} == {
        "model/README.md",
        "model/figures/perplexity_fox_large.svg",
        "model/figures/perplexity_fox_small.svg",
        "dataset/README.md",
    }
    after = {
        path: path.read_bytes() for root in (place.model, place.data) for path in root.rglob("*") if path.is_file()
    }
    assert after == before


def test_a_snapshot_of_the_hub_is_not_written_to(place, tmp_path):
    snapshot = cached(
        "den/model", {p.relative_to(place.model).as_posix(): p for p in place.model.rglob("*") if p.is_file()}
    )
    found = opened(Path("den/model"), place.data)
    assert found.repositories.model.folder.is_relative_to(snapshot)
    assert found.study.identity.repo == "den/model"

    with pytest.raises(SteerEvalError, match="on the Hub, and is not written to") as caught:
        write_legacy(found.repositories, found.study, out=None, force=True)
    assert "--out" in caught.value.fix
    assert len(write_legacy(found.repositories, found.study, out=tmp_path / "cards", force=False)) == 4


def test_a_place_that_cannot_be_written_is_named(place, tmp_path):
    found = opened(place.model, place.data)
    (tmp_path / "cards").write_text("a file")

    with pytest.raises(SteerEvalError, match="can't be written") as caught:
        write_legacy(found.repositories, found.study, out=tmp_path / "cards", force=False)
    assert "--out" in caught.value.fix


def test_the_definition_of_the_published_frequency_is_contradicted(published):
    findings = check_legacy(published.repositories, published.study)

    errors = [finding for finding in findings if finding.severity == "error"]
    assert [finding.where for finding in errors] == ["line 73: column 62"]
    assert "share of prompts" in errors[0].message
    assert [finding.rule for finding in findings if finding.severity == "warning"] == ["card-absent"]


def test_stale_numbers_of_a_rendered_card_are_found_the_first_first(place):
    found = opened(place.model, place.data)
    write_legacy(found.repositories, found.study, out=None, force=True)
    path = place.path("model/README.md")
    lines = path.read_text().splitlines(keepends=True)
    norms = [index for index, line in enumerate(lines) if re.match(r"\| den/fox-\S+ \| \d+ \| [0-9.]+ \|", line)]
    for index in (norms[0], norms[3]):
        lines[index] = re.sub(r"\| ([0-9.]+) \| (\d+) \|$", r"| 9\1 | \2 |", lines[index].rstrip()) + "\n"
    path.write_text("".join(lines))
    again = opened(place.model, place.data)

    findings = check_legacy(again.repositories, again.study)
    assert [finding.where.partition(":")[0] for finding in findings] == [f"line {norms[0] + 1}", f"line {norms[3] + 1}"]
    assert {finding.rule for finding in findings} == {"card-differs"}
    assert all("the data contradicts" in finding.message for finding in findings)


def test_words_of_a_rendered_card_are_held_to_the_rendering(place):
    found = opened(place.model, place.data)
    write_legacy(found.repositories, found.study, out=None, force=True)
    path = place.path("data/README.md")
    path.write_text(path.read_text().replace("## Limitations", "## Strengths"))
    place.path("model/figures/perplexity_fox_small.svg").unlink()
    again = opened(place.model, place.data)

    assert [(f.rule, Path(f.file).name) for f in check_legacy(again.repositories, again.study)] == [
        ("card-absent", "perplexity_fox_small.svg"),
        ("card-differs", CARD),
    ]


def test_what_contradicts_itself_supports_no_number(place):
    """A ratio that does not follow from its perplexities is contradicted, whatever the card says of it."""
    ratio = json.loads(place.path("data/sweep_fox_small.jsonl").read_text().splitlines()[1])["ppl_ratio"]
    place.path("data/README.md").write_text("# Fox\n\n")
    with place.path("model/README.md").open("a") as file:
        file.write(f"\n| Model | Cell | PPL ratio |\n|---|---|---|\n| 0.5B | L=2 c=+1 | {ratio + 0.5:.2f} |\n")
    place.edit_line("data/sweep_fox_small.jsonl", 2, lambda row: row.update(ppl_ratio=row["ppl_ratio"] + 0.5))
    found = opened(place.model, place.data)

    messages = [finding.message for finding in check_legacy(found.repositories, found.study)]
    assert any("perplexity ratio" in message for message in messages)


def test_a_study_without_scores_or_sweeps_still_has_cards(place):
    for path in place.data.iterdir():
        if path.name != "contrast_pairs.jsonl":
            path.unlink()
    found = opened(place.model, place.data)

    assert "## Best cells" not in found.model_card
    assert "model-index" not in found.model_card
    assert len(code(found.model_card)) == 2
    assert list(render_model_repo(found.study)) == [CARD]
    loads(place.data, found)


def test_a_model_repo_without_vectors_has_no_code(place):
    shutil.rmtree(place.model / "vectors")
    found = opened(place.model, place.data)

    assert code(found.model_card) == []
    assert "## Vectors" not in found.model_card


def test_without_a_dataset_repo_the_data_is_asked_for(place, tmp_path):
    alone = tmp_path / "alone" / "vectors"
    shutil.copytree(place.model, alone)

    repositories = open_target(str(alone))
    assert isinstance(repositories, Repositories)
    with pytest.raises(SteerEvalError, match="which dataset repo") as caught:
        open_legacy(repositories, Asked())
    assert "--data" in caught.value.fix
