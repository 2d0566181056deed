"""`steer-eval export` and `steer-eval import` as a user meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import in_one_process
from export.vector_sets import vector
from pt_files import sae as sae_pt

from steer_eval.export import FORMATS, load_format
from steer_eval.export.gguf_control_vector import read_control_vector
from steer_eval.formats.sae import read_sae_pt
from steer_eval.formats.saelens import read_saelens
from steer_eval.formats.vector import file_name, read_vector, write_vector

LAYERS = (1, 3)


def run(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from steer_eval.cli.main import main; main()", *arguments]
    return subprocess.run(
        program, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def repo(tmp_path):
    for layer in LAYERS:
        write_vector(tmp_path / "repo" / file_name("tiny", layer), vector(layer))
    return tmp_path / "repo"


@pytest.mark.parametrize("name", [name for name in FORMATS if load_format(name).takes == "vectors"])
def test_every_format_says_what_it_wrote_and_how_it_is_loaded(repo, name):
    here = repo.parent
    answer = run(here, "export", "repo", "--to", name, "--model-type", "llama", "--coef", "2.5", "--out", "out/")
    assert answer.returncode == 0, answer.stderr
    head, usage = answer.stdout.rstrip("\n").split("\n\n")
    written = [line.removeprefix("wrote ") for line in head.splitlines()]

    assert sorted(written) == sorted(str(path.relative_to(here)) for path in (here / "out").iterdir())
    assert written[0] in usage
    if name == "lm-eval":
        content = torch.load(here / written[0], weights_only=True)
        assert {entry["steering_coefficient"] for entry in content.values()} == {2.5}
    else:
        assert "2.5" in usage
    if name == "caa-pt":
        check = f"{usage}\nimport torch\nassert torch.equal(vector, torch.tensor({(2.5 * vector(1).values).tolist()}))"
        assert subprocess.run([sys.executable, "-c", check], cwd=here, timeout=60).returncode == 0


def test_one_layer_goes_to_the_file_that_is_named(repo):
    out = repo.parent / "calm.gguf"
    answer = run(
        repo, "export", ".", "--to", "llama-cpp", "--layer", "3", "--model-type", "llama", "--out", str(out), "--json"
    )
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)

    assert document["files"] == [{"path": str(out), "bytes": out.stat().st_size}]
    assert document["usage"].splitlines()[0].endswith(f"--control-vector-scaled {out}:1")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"model_type": "granite"}', None),
        ('{"hidden_size": 48}', "lab/tiny-base does not stand in its config.json"),
        ("[]", "does not stand in its config.json"),
        ("{", "lab/tiny-base/config.json"),
    ],
)
def test_the_type_of_a_model_comes_from_its_config(repo, tmp_path, config, message):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--lab--tiny-base"
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "snapshots" / commit / "config.json").write_text(config)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    answer = run(tmp_path, "export", "repo", "--to", "llama-cpp", HF_HUB_CACHE=str(tmp_path / "hub"))

    if message is None:
        assert answer.returncode == 0, answer.stderr
        assert read_control_vector(tmp_path / "tiny.gguf").model_hint == "granite"
    else:
        assert answer.returncode == 2
        assert message in answer.stderr
        assert not (tmp_path / "tiny.gguf").exists()


def test_nothing_is_replaced_without_force(repo):
    kept, forced = repo.parent / "kept", repo.parent / "forced"
    for folder in (kept, forced):
        folder.mkdir()
        (folder / "tiny_L3_caa.pt").write_bytes(b"mine")
    export = ["export", str(repo), "--to", "caa-pt", "--out"]
    refused, written = in_one_process(os.environ, [*export, f"{kept}/"], [*export, f"{forced}/", "--force"])

    assert refused.code == 2
    assert "tiny_L3_caa.pt is there already" in refused.stderr
    assert "--force" in refused.stderr
    assert (kept / "tiny_L3_caa.pt").read_bytes() == b"mine"
    assert not (kept / "tiny_L1_caa.pt").exists()
    assert written.code == 0, written.stderr
    assert (forced / "tiny_L3_caa.pt").read_bytes() != b"mine"


MISTAKES = [
    (["export", "repo", "--to", "llama-cpp"], "--model-type llama"),
    (["export", "repo", "--to", "lm-eval", "--model-type", "clip"], "no causal language model"),
    (["export", "repo", "--to", "nonsense"], "is not one of"),
    (["export", "repo", "--to", "caa-pt", "--coef", "nan"], "--coef is a number"),
    (["export", "--to", "caa-pt"], "Missing argument"),
    (["export", "repo", "--to", "saelens"], "cfg.json"),
    (["import", "absent.gguf", "--name", "a", "--out", "o"], "the file is absent"),
    (["import", "absent.gguf", "--name", "A b", "--out", "o"], "--name A b"),
    (["import", "repo", "--name", "a", "--out", "o"], "cfg.json"),
]


def test_mistakes_exit_with_2_and_say_what_is_wrong(repo):
    answers = in_one_process(os.environ, *(arguments for arguments, _ in MISTAKES), cwd=repo.parent)

    for (arguments, message), answer in zip(MISTAKES, answers, strict=True):
        assert answer.code == 2, arguments
        assert message in answer.stderr, arguments
    assert [path.name for path in repo.parent.iterdir()] == ["repo"]


def test_a_control_vector_goes_out_and_comes_back(repo):
    here = repo.parent
    take = ["import", "tiny.gguf", "--name", "again", "--out", "taken"]
    first, answer, again, forced = in_one_process(
        os.environ,
        ["export", "repo", "--to", "llama-cpp", "--model-type", "llama"],
        [*take, "--json"],
        take,
        [*take, "--force"],
        cwd=here,
    )
    assert (first.code, answer.code) == (0, 0), first.stderr + answer.stderr

    rows = json.loads(answer.stdout)["files"]
    assert [row["layer"] for row in rows] == list(LAYERS)
    for row in rows:
        taken = read_vector(here / row["path"])
        assert row["path"] == f"taken/{file_name('again', row['layer'])}"
        assert taken.values.tobytes() == vector(row["layer"]).values.tobytes()
        assert row["norm"] == taken.norm
    assert again.code == 2
    assert "is there already" in again.stderr
    assert forced.code == 0


def test_saes_are_exported_and_saelens_ones_are_taken_back(tmp_path):
    torch.save(sae_pt(), tmp_path / "sae.pt")
    was = read_sae_pt(tmp_path / "sae.pt")
    names = [name for name in FORMATS if load_format(name).takes == "sae"]
    back = [name for name in names if name != "sparsify"]
    answers = in_one_process(
        os.environ,
        *(["export", "sae.pt", "--to", name, "--out", name] for name in names),
        *(["import", f"{name}/layers.{was.layer}", "--name", "tiny", "--out", f"{name}-repo"] for name in back),
        cwd=tmp_path,
    )

    assert [answer.code for answer in answers] == [0] * len(answers), [answer.stderr for answer in answers]
    for name, answer in zip(names, answers, strict=False):
        assert f"'{name}/layers.{was.layer}'" in answer.stdout
    for name, answer in zip(back, answers[len(names) :], strict=True):
        assert answer.stdout.startswith(f"{name}-repo/")
        taken = read_saelens(tmp_path / answer.stdout.strip())
        for key, tensor in was.tensors().items():
            assert torch.equal(taken.tensors()[key], tensor)
