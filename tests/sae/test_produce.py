"""`steer-eval sae train` and `sae features` on a tiny study, from text to table."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_study import SAE, edit, trained
from tiny_models import HIDDEN, TEXT, save_tiny_model
from tiny_study import SCENARIOS, invoke

from steer_eval.errors import SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.saelens import read_saelens
from steer_eval.formats.strict_json import read_json, read_jsonl, write_jsonl
from steer_eval.produce import LoadedModel
from steer_eval.publish.belongs import Choice, select
from steer_eval.sae import produce, topk
from steer_eval.sae.activations import Passage, load_split
from steer_eval.sae.feature_activity import read_feature_activity
from steer_eval.sae.quality import cross_entropy, reconstruction
from steer_eval.sae.sinks import is_sink
from steer_eval.study import load_study


def test_a_trained_sae_says_how_good_it_is(planned, work):
    row = trained(planned)

    sae = read_saelens(planned.model / "saes/tiny/layers.2")
    quality = json.loads(sae.provenance["quality"])
    schema.check(quality, "sae_quality", file="quality")
    assert {key: row[key] for key in quality} == quality
    (folder,) = work.iterdir()
    held_out = load_split(folder, "held_out")
    again = reconstruction(sae, held_out.batches(64), threshold=float(sae.provenance["sink_norm"]))
    assert quality["held_out_fvu"] == pytest.approx(again.fvu, rel=1e-4)
    assert quality["held_out_tokens"] == len(held_out) - again.sinks
    assert quality["training_tokens"] == len(load_split(folder, "train"))
    assert quality["held_out_fvu"] < 1
    assert torch.allclose(sae.w_dec.norm(dim=1), torch.ones(96), atol=1e-5)
    (log,) = folder.glob("training-*.jsonl")
    *steps, last = [each.value for each in read_jsonl(log, schema="sae_training_row")]
    assert [each["step"] for each in steps] == [5, 10, 15, 20, 25, 28]
    assert steps[-1]["held_out_fvu"] == pytest.approx(quality["held_out_fvu"], rel=1e-4)
    assert steps[-1]["held_out_fvu"] < steps[0]["held_out_fvu"]
    assert [each["step"] for each in steps if "excess_cross_entropy" in each] == [10, 20, 28]
    lm = LoadedModel(load_study(planned.model / "study.yaml").models["tiny"], planned.model).lm
    text = [Passage(each.ids[:64], each.document) for each in produce.spread(held_out.passages(), 4)]
    entropy = cross_entropy(lm, sae, text, torch.zeros(HIDDEN), threshold=float(sae.provenance["sink_norm"]))
    assert steps[-1]["excess_cross_entropy"] == pytest.approx(entropy.excess, rel=1e-3, abs=1e-5)
    assert quality["cross_entropy_passages"] == min(64, len(held_out.passages()))
    assert last == {"step": 28, "quality": quality}


def test_it_says_what_each_feature_does_on_the_training_text(planned, work):
    trained(planned)

    folder = planned.model / "saes/tiny/layers.2"
    sae, found = read_saelens(folder), read_feature_activity(folder, 96)
    (stored,) = work.iterdir()
    residuals = load_split(stored, "train")
    x = residuals.rows(torch.arange(len(residuals)))
    acts = topk.encode(sae, x[~is_sink(x, float(sae.provenance["sink_norm"]))])
    assert np.allclose(found.maximum, acts.amax(dim=0).numpy(), rtol=1e-4, atol=1e-5)
    assert np.allclose(found.frequency, (acts > 0).float().mean(dim=0).numpy(), atol=1e-6)
    dead = json.loads(sae.provenance["quality"])["dead_share"]
    assert float((found.frequency == 0).mean()) == pytest.approx(dead, abs=1e-6)


def test_a_folder_with_the_activity_is_in_order(planned, work):
    trained(planned)
    assert invoke("sae", "features", str(planned.model)).exit_code == 0
    assert invoke("card", str(planned.model)).exit_code == 0

    report = json.loads(invoke("validate", str(planned.model), "--json", "--strict").stdout)

    assert report["findings"] == []
    manifest = read_json(planned.model / "manifest.json")
    kinds = {entry["path"]: entry["kind"] for entry in manifest["files"]}
    assert kinds["saes/tiny/layers.2/activity.safetensors"] == "sae_activity"
    selection = select(planned.model, "tiny", Choice())
    assert "saes/tiny/layers.2/activity.safetensors" in selection.paths
    assert not [each for each in selection.findings if "activity" in each.file]
    (planned.model / "saes/tiny/layers.2/activity.safetensors").unlink()
    assert invoke("card", str(planned.model)).exit_code == 0
    report = json.loads(invoke("validate", str(planned.model), "--json", "--strict").stdout)
    assert report["findings"] == []


@given(st.integers(1, 500), st.integers(1, 100))
def test_passages_are_spread_over_all(there, wanted):
    passages = [Passage((number,), 9) for number in range(there)]

    found = [passage.ids[0] for passage in produce.spread(passages, wanted)]

    assert len(found) == min(there, wanted)
    assert found == sorted(set(found))
    gaps = {after - before for before, after in pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    # As much is left before the first as after the last.
    assert abs(found[0] - (there - 1 - found[-1])) <= 1


def test_one_feature_is_enough_to_be_saved(planned, work):
    edit(planned, saes=[{key: value for key, value in SAE.items() if key != "table"} | {"features": 1, "k": 1}])

    assert trained(planned)["features"] == 1

    assert read_saelens(planned.model / "saes/tiny/layers.2").w_enc.shape == (HIDDEN, 1)


def test_the_largest_seed_trains(planned, work):
    edit(planned, saes=[{**SAE, "seed": 2**32 - 1}])

    assert trained(planned)["held_out_fvu"] < 1


def test_the_plain_recipe_trains_on_everything(planned, work):
    edit(planned, saes=[{**SAE, "recipe": "plain"}])

    trained(planned)

    sae = read_saelens(planned.model / "saes/tiny/layers.2")
    assert json.loads(sae.provenance["recipe_settings"])["drop_sinks"] is False
    assert 0 < float(sae.provenance["sink_norm"]) < float("inf")


def test_a_table_from_the_published_texts(planned, work):
    trained(planned)
    shutil.rmtree(work)

    answer = invoke("sae", "features", str(planned.model), "--json")

    assert answer.exit_code == 0, answer.output
    table = read_json(planned.model / "saes/tiny_L2_features.json")
    schema.check(table, "features", file="table")
    assert json.loads(answer.stdout) == {"tables": {"saes/tiny_L2_features.json": table}}
    assert (table["model"], table["layer"], table["coef"], table["n_prompts"]) == (
        "lab/tiny-base",
        2,
        1,
        len(SCENARIOS),
    )
    assert len(table["top_features"]) == 8
    assert "random_delta" in table["discoveries"]
    assert any(row["contexts"] for row in table["top_features"])
    # Contexts need the held-out tenth of the text alone.
    (folder,) = work.iterdir()
    assert {path.name.split("-")[0] for path in folder.glob("*.safetensors")} == {"held_out"}
    first = (planned.model / "saes/tiny_L2_features.json").read_bytes()
    assert invoke("sae", "features", str(planned.model)).exit_code == 0
    assert (planned.model / "saes/tiny_L2_features.json").read_bytes() == first


def test_what_is_made_is_valid_and_what_is_changed_is_named(planned, work):
    trained(planned)
    assert invoke("sae", "features", str(planned.model)).exit_code == 0

    def rules() -> set[tuple[str, str]]:
        report = json.loads(invoke("validate", str(planned.model), "--json").stdout)
        return {(each["rule"], each["where"]) for each in report["findings"] if "sae" in each["file"]}

    def changed(**settings) -> set[tuple[str, str]]:
        path = planned.model / "saes/tiny_L2_features.json"
        table = original = read_json(path)
        row = {**table["top_features"][0], **settings}
        path.write_text(json.dumps({**table, "top_features": [row, *table["top_features"][1:]]}))
        found = rules()
        path.write_text(json.dumps(original))
        return {each for each in found if each[0] == "feature-statistics"}

    assert {rule for rule, _ in rules()} <= {"manifest-file"}
    first = read_json(planned.model / "saes/tiny_L2_features.json")["top_features"][0]
    where = "top_features[0]"
    _, high = first["delta_interval"]
    assert changed(effect=2 * first["effect"]) == {("feature-statistics", f"{where}.effect")}
    assert changed(delta_interval=[high + 1, high + 2]) == {("feature-statistics", f"{where}.delta_interval")}
    assert changed(steered_token_freq=0.51234) == {("feature-statistics", f"{where}.steered_token_freq")}
    assert changed(feature_id=96) == {("feature-statistics", f"{where}.feature_id")}
    config = planned.model / "saes/tiny/layers.2/cfg.json"
    document = read_json(config)
    document["metadata"]["steer_eval"]["k"] = "5"
    quality = json.loads(document["metadata"]["steer_eval"]["quality"])
    document["metadata"]["steer_eval"]["quality"] = json.dumps({**quality, "excess_cross_entropy": 9.0})
    config.write_text(json.dumps(document))
    assert {
        ("sae-provenance", "metadata.steer_eval.k"),
        ("sae-provenance", "metadata.steer_eval.quality.excess_cross_entropy"),
    } <= rules()


@pytest.mark.parametrize("command", ["train", "features"])
def test_without_a_plan_it_says_what_to_add(folders, command):
    with pytest.raises(SteerEvalError) as caught:
        invoke("sae", command, str(folders.model))

    assert "study.yaml" in caught.value.fix


def test_too_little_text_is_refused(planned, work):
    write_jsonl(planned.data / "documents.jsonl", [{"text": TEXT}] * 9)

    with pytest.raises(SteerEvalError, match="fewer than 10 documents"):
        invoke("sae", "train", str(planned.model))


def test_a_hybrid_model_is_trained_on_as_well(planned, work):
    shutil.rmtree(planned.model.parent / "base")
    save_tiny_model(planned.model.parent / "base", "qwen3_5")
    assert trained(planned)["held_out_fvu"] < 1
    assert read_saelens(planned.model / "saes/tiny/layers.2").d_in == HIDDEN
