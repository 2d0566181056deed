"""`steer-eval sae train` and `sae features` on a tiny study, from text to table."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import HIDDEN, TEXT, save_tiny_model
from tiny_study import SCENARIOS, invoke

from steer_eval.errors import FormatError, SteerEvalError
from steer_eval.formats import schema
from steer_eval.formats.saelens import read_saelens
from steer_eval.formats.strict_json import read_json, read_jsonl, write_jsonl
from steer_eval.produce import LoadedModel
from steer_eval.publish.belongs import Choice, select
from steer_eval.sae import produce, topk, training_log
from steer_eval.sae.activations import Passage, load_split
from steer_eval.sae.feature_activity import read_feature_activity
from steer_eval.sae.quality import cross_entropy, reconstruction
from steer_eval.sae.sinks import is_sink
from steer_eval.sae.training import Training
from steer_eval.study import load_study

SAE = {
    "model": "tiny",
    "layer": 2,
    "features": 96,
    "k": 4,
    "text": {"files": ["documents.jsonl"]},
    "tokens": 4000,
    "context": 32,
    "table": {"coefficient": 1, "top": 8},
}


def plan(folders, *saes) -> None:
    study = folders.model / "study.yaml"
    study.write_text(yaml.safe_dump({**yaml.safe_load(study.read_text()), "saes": list(saes)}, sort_keys=False))


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own, in which shards are small and measurements frequent."""
    monkeypatch.setenv("STEER_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("steer_eval.sae.activations.SEQUENCES_PER_SHARD", 40)
    monkeypatch.setattr(produce, "CHECKPOINT_EVERY", 8)
    monkeypatch.setattr(training_log, "EVERY", 5)
    monkeypatch.setattr(training_log, "ENTROPY_EVERY", 10)
    return tmp_path / "cache" / "saes"


@pytest.fixture
def planned(folders, work):
    write_jsonl(folders.data / "documents.jsonl", [{"text": TEXT[(7 * number) % 90 :]} for number in range(40)])
    plan(folders, SAE)
    return folders


def trained(folders, *, code: int = 0):
    answer = invoke("sae", "train", str(folders.model), "--json")
    assert answer.exit_code == code, answer.output
    return json.loads(answer.stdout)["saes"][0]


def sae_bytes(folders) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folders.model / "saes/tiny/layers.2").iterdir())}


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


def test_an_sae_without_its_activity_gets_it_and_is_not_trained_again(planned, work):
    trained(planned)
    before = sae_bytes(planned)
    (planned.model / "saes/tiny/layers.2/activity.safetensors").unlink()
    # A training would write its log and its checkpoint anew.
    left = list(work.glob("*/training-*"))
    for file in left:
        file.unlink()

    trained(planned)

    assert sae_bytes(planned) == before
    assert {file.suffix for file in left} == {".jsonl", ".safetensors"}
    assert not list(work.glob("*/training-*"))
    shutil.rmtree(work)
    path = planned.model / "saes/tiny/layers.2/activity.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    trained(planned)
    assert sae_bytes(planned) == before
    assert {shard.name.split("-")[0] for shard in work.glob("*/*.safetensors")} == {"train"}


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


def test_a_killed_training_ends_in_the_same_files(planned, work, monkeypatch, tmp_path):
    trained(planned)
    whole = sae_bytes(planned)
    (log,) = work.glob("*/training-*.jsonl")
    rows = log.read_bytes()
    shutil.rmtree(planned.model / "saes")
    shutil.rmtree(work)
    # A signal from outside can't be aimed at a step, and the steps that are taken again are what is looked at.
    save = Training.save

    def killed(self, path) -> None:
        save(self, path)
        if self.step == 16:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "save", killed)
    assert invoke("sae", "train", str(planned.model)).exit_code != 0
    assert not (planned.model / "saes").exists()
    assert len(log.read_text().splitlines()) == 3
    monkeypatch.setattr(Training, "save", save)
    taken = []
    step = Training._step
    monkeypatch.setattr(Training, "_step", lambda self, x: taken.append(self.step) or step(self, x))
    trained(planned)

    assert taken == list(range(16, 28))
    assert sae_bytes(planned) == whole
    assert log.read_bytes() == rows


def test_an_sae_that_is_there_is_not_trained_again(planned, work):
    trained(planned)
    before = sae_bytes(planned)
    shutil.rmtree(work)

    trained(planned)

    assert sae_bytes(planned) == before
    # Not even the text was read: residuals, log and checkpoint of a training are kept there.
    assert not work.exists()
    plan(planned, {**SAE, "seed": 1})
    trained(planned)
    assert work.exists()
    assert sae_bytes(planned) != before


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


def test_an_sae_of_another_precision_is_trained_again(planned, work):
    trained(planned)
    study = planned.model / "study.yaml"
    document = yaml.safe_load(study.read_text())
    document["models"]["tiny"]["dtype"] = "bfloat16"
    study.write_text(yaml.safe_dump(document, sort_keys=False))

    answer = invoke("sae", "train", str(planned.model))

    assert answer.exit_code == 0, answer.output
    assert "saes/tiny/layers.2 is trained again: its dtype was float32, and is bfloat16 now" in answer.stderr
    assert read_saelens(planned.model / "saes/tiny/layers.2").provenance["dtype"] == "bfloat16"
    assert "trained again" not in invoke("sae", "train", str(planned.model)).stderr


def test_an_sae_that_does_not_say_its_precision_is_trained_again(planned, work):
    trained(planned)
    config = planned.model / "saes/tiny/layers.2/cfg.json"
    written = read_json(config)
    del written["metadata"]["steer_eval"]["dtype"]
    config.write_text(json.dumps(written))

    answer = invoke("sae", "train", str(planned.model))

    assert answer.exit_code == 0, answer.output
    assert "its dtype is not recorded, and is float32 now" in answer.stderr
    assert read_saelens(planned.model / "saes/tiny/layers.2").provenance["dtype"] == "float32"


def test_what_the_cache_holds_is_not_read_again(planned, work, monkeypatch):
    trained(planned)
    monkeypatch.setattr(produce, "documents", lambda *_: pytest.fail("the text was read"))

    assert invoke("sae", "features", str(planned.model)).exit_code == 0
    plan(planned, {**SAE, "seed": 1})
    trained(planned)


@pytest.mark.parametrize("file", ["train-00000.safetensors", "training-*.safetensors"])
def test_a_damaged_cache_is_named(planned, work, file):
    trained(planned)
    whole = sae_bytes(planned)
    shutil.rmtree(planned.model / "saes")
    (damaged,) = work.glob(f"*/{file}")
    damaged.write_bytes(damaged.read_bytes()[:-9])

    with pytest.raises(FormatError) as caught:
        invoke("sae", "train", str(planned.model))

    assert caught.value.file == str(damaged)
    assert caught.value.fix == "delete it and run again"
    damaged.unlink()
    trained(planned)
    assert sae_bytes(planned) == whole


def test_one_feature_is_enough_to_be_saved(planned, work):
    plan(planned, {key: value for key, value in SAE.items() if key != "table"} | {"features": 1, "k": 1})

    assert trained(planned)["features"] == 1

    assert read_saelens(planned.model / "saes/tiny/layers.2").w_enc.shape == (HIDDEN, 1)


def test_the_largest_seed_trains(planned, work):
    plan(planned, {**SAE, "seed": 2**32 - 1})

    assert trained(planned)["held_out_fvu"] < 1


def test_the_plain_recipe_trains_on_everything(planned, work):
    plan(planned, {**SAE, "recipe": "plain"})

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


def test_an_sae_of_another_tokenizer_is_trained_again(planned, work):
    first = trained(planned)
    before = read_saelens(planned.model / "saes/tiny/layers.2").provenance
    file = planned.model.parent / "base/tokenizer_config.json"
    file.write_text(file.read_text() + "\n")

    again = trained(planned)

    after = read_saelens(planned.model / "saes/tiny/layers.2").provenance
    assert before["weights_sha256"] == after["weights_sha256"]
    assert before["companions_sha256"] != after["companions_sha256"]
    # A new line decides no token, so what was made again is the same.
    assert again["held_out_fvu"] == first["held_out_fvu"]
    assert len(list(work.glob("*/activations.json"))) == 2
