"""What the Hub reads of the cards, and the names in them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from legacy_cards.opened import opened

from steer_eval.errors import SteerEvalError
from steer_eval.legacy.identity import Asked
from steer_eval.legacy_cards import check_legacy, write_legacy


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
