"""Weights in local folders and in the Hub's cache, and where converted ones are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gguf_packages import sha256
from tiny_models import save_tiny_model

from steer_eval.errors import SteerEvalError
from steer_eval.model import load_model
from steer_eval.model_reference import HubSource, LocalSource, ModelReference
from steer_eval.weights import cache_folder, fetch


def get(reference: ModelReference, study_folder: Path = Path("/nowhere")):
    return fetch(reference, study_folder=study_folder)


class TestLocalFolders:
    def reference(self, path: str) -> ModelReference:
        return ModelReference("tiny", "nobody/tiny", "float32", LocalSource(path))

    @pytest.mark.parametrize("absolute", [True, False])
    def test_a_folder(self, tmp_path, absolute):
        save_tiny_model(tmp_path / "models" / "tiny")
        path = str(tmp_path / "models" / "tiny") if absolute else "models/tiny"
        weights = get(self.reference(path), tmp_path)
        assert weights.folder == (tmp_path / "models" / "tiny").resolve()
        assert weights.revision == "local"
        assert weights.sha256 == sha256(weights.folder / "model.safetensors")
        load_model(weights.folder)

    def test_sharded_weights_have_one_digest(self, tmp_path):
        lm = save_tiny_model(tmp_path / "one")
        for name, size in (("a", "40KB"), ("b", "40KB")):
            lm.module.save_pretrained(tmp_path / name, max_shard_size=size)
        assert len(list((tmp_path / "a").glob("*.safetensors"))) > 1
        first, second = (get(self.reference(name), tmp_path).sha256 for name in ("a", "b"))
        assert first == second
        assert len(first) == 64
        shard = next((tmp_path / "b").glob("*.safetensors"))
        shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
        assert get(self.reference("b"), tmp_path).sha256 != first

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(SteerEvalError, match=r"model tiny: no config\.json in models/tiny") as caught:
            get(self.reference("models/tiny"), tmp_path)
        assert "models.tiny.source.local.path" in caught.value.fix

    def test_a_folder_without_weights_is_refused(self, tmp_path):
        save_tiny_model(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(SteerEvalError, match=r"no \.safetensors weights"):
            get(self.reference("."), tmp_path)


class TestHub:
    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    @pytest.fixture
    def hub_cache(self, tmp_path):
        """What `hf download` leaves on the disk."""
        repo = tmp_path / "hub" / "models--nobody--tiny"
        save_tiny_model(tmp_path / "saved")
        (repo / "blobs").mkdir(parents=True)
        snapshot = repo / "snapshots" / self.COMMIT
        snapshot.mkdir(parents=True)
        for file in (tmp_path / "saved").iterdir():
            blob = repo / "blobs" / sha256(file)
            file.rename(blob)
            (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
        (repo / "refs").mkdir()
        (repo / "refs" / "v1").write_text(self.COMMIT)
        return tmp_path / "hub"

    def run(self, hub_cache, revision):
        reference = ModelReference("tiny", "nobody/tiny", "float32", HubSource("nobody/tiny", revision))
        script = (
            "import json\n"
            "from pathlib import Path\n"
            "from steer_eval.errors import SteerEvalError\n"
            "from steer_eval.model import load_model\n"
            "from steer_eval.model_reference import *\n"
            "from steer_eval.weights import fetch\n"
            "try:\n"
            f"    weights = fetch({reference!r}, study_folder=Path('.'))\n"
            "    blocks = len(load_model(weights.folder).blocks)\n"
            "    print(json.dumps([str(weights.folder), weights.revision, weights.sha256, blocks]))\n"
            "except SteerEvalError as error:\n"
            "    print(json.dumps([error.message, error.fix]))\n"
        )
        environment = os.environ | {"HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1"}
        result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def test_a_revision_in_the_cache_needs_no_network(self, hub_cache):
        folder, resolved, digest, blocks = self.run(hub_cache, "v1")
        snapshot = hub_cache / "models--nobody--tiny" / "snapshots" / self.COMMIT
        assert Path(folder) == snapshot
        assert resolved == self.COMMIT
        assert digest == sha256(snapshot / "model.safetensors")
        assert blocks == 4

    def test_a_revision_that_is_not_there_names_the_command(self, hub_cache):
        message, fix = self.run(hub_cache, "v2")
        assert "model tiny: nobody/tiny@v2 can't be fetched" in message
        assert "hf download nobody/tiny --revision v2" in fix


class TestCacheFolder:
    def test_the_environment_decides(self, monkeypatch):
        monkeypatch.setenv("STEER_EVAL_CACHE", "~/somewhere")
        assert cache_folder() == Path.home() / "somewhere"

    @pytest.mark.parametrize("value", ["", None])
    def test_else_the_platform(self, monkeypatch, value):
        if value is None:
            monkeypatch.delenv("STEER_EVAL_CACHE")
        else:
            monkeypatch.setenv("STEER_EVAL_CACHE", value)
        assert cache_folder().name == "steer-eval"
