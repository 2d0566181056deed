"""`steer-eval sae train` on a tiny study a second time: what is there is kept, what no longer fits is made again."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from sae_study import SAE, edit, sae_bytes, trained
from tiny_study import invoke

from steer_eval.errors import FormatError
from steer_eval.formats.saelens import read_saelens
from steer_eval.formats.strict_json import read_json
from steer_eval.sae import produce
from steer_eval.sae.training import Training


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
    edit(planned, saes=[{**SAE, "seed": 1}])
    trained(planned)
    assert work.exists()
    assert sae_bytes(planned) != before


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
    edit(planned, saes=[{**SAE, "seed": 1}])
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
