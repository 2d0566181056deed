"""`docs/publishing.md`, run from its first block to its last: on a tiny model, and a Hub on localhost."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from action_runner import PUBLISH, ROOT, VALIDATE, is_valid
from commands import in_one_process
from hub_server import HubServer

from steer_eval import __version__

PAGE = ROOT / "docs" / "publishing.md"
LAYERS = 20
_BLOCK = re.compile(r"^```(?P<language>\w*)(?: title=(?P<title>\S+))?\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: a file, if it has a title, else commands."""

    language: str
    title: str | None
    content: str
    line: int


def blocks() -> list[Block]:
    text = PAGE.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["title"], found["content"], text.count("\n", 0, found.start()) + 1)
        for found in _BLOCK.finditer(text)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model as deep as the page's layers ask for."""
    from tiny_models import tiny_config, tiny_tokenizer
    from transformers import LlamaForCausalLM, set_seed

    folder = tmp_path_factory.mktemp("base")
    config = tiny_config("llama")
    config.num_hidden_layers, config.initializer_range = LAYERS, 0.05
    set_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_every_block_is_a_file_or_commands() -> None:
    found = blocks()

    assert len(found) == PAGE.read_text(encoding="utf-8").count("\n```") / 2
    assert all(block.title or block.language == "console" for block in found)
    assert {"study.yaml", "study.yml"} <= {Path(block.title).name for block in found if block.title}


def test_the_page_can_be_followed(base: Path, hub: HubServer, tmp_path: Path) -> None:
    place, home = tmp_path / "place", tmp_path / "home"
    place.mkdir()
    hub.upload("HuggingFaceTB/SmolLM2-135M-Instruct", "model", base)
    environment = hub.environment(home)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    said: dict[str, str] = {}
    waiting: list[tuple[Block, str]] = []

    def run_waiting() -> None:
        answers = in_one_process(environment, *(shlex.split(line)[1:] for _, line in waiting), cwd=place)
        for (block, line), answer in zip(waiting, answers, strict=True):
            assert answer.code == 0, (
                f"{PAGE.name}:{block.line}: {line}\n{answer.stdout[-4000:]}\n{answer.stderr[-4000:]}"
            )
            said[line] = answer.stdout
        waiting.clear()

    for block in blocks():
        content = block.content.replace("NAMESPACE", "steer")
        if block.title:
            file = place / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
            continue
        for line in content.splitlines():
            if line.startswith("steer-eval "):
                waiting.append((block, line))
                continue
            run_waiting()
            subprocess.run(["bash", "-eo", "pipefail", "-c", line], cwd=place, env=environment, check=True, timeout=60)
    run_waiting()

    # What the page promises of its commands.
    model, data = "steer/my-study", "steer/my-study-data"
    pin = json.loads(hub.files(model)["config.json"])
    assert pin["data"] == data
    assert hub.head(model, "model", "v1.0") == hub.head(model)
    assert hub.head(data, "dataset", "v1.0") == hub.head(data, "dataset") == pin["data_revision"]
    # Created, published, and nothing changed after that: two commits.
    assert [len(hub.commits(*each)) for each in ((model, "model"), (data, "dataset"))] == [2, 2]
    [dry] = [text for script, text in said.items() if "--dry-run" in script]
    assert "+ vectors/smollm2_L18_caa.safetensors" in dry
    [reproduced] = [text for script, text in said.items() if "--level recompute" in script]
    assert "3 claims: 1 not-checkable, 2 reproduced" in reproduced
    [differs] = [text for script, text in said.items() if "steer-eval diff" in script]
    assert "no differences" in differs
    [job] = [text for script, text in said.items() if "--print-job" in script]
    assert f"steer/my-study@{hub.head(model)}" in job
    assert not hub.jobs


def test_the_workflow_is_one_to_github_and_uses_the_actions_inputs(tmp_path: Path) -> None:
    [block] = [block for block in blocks() if block.title and block.title.startswith(".github/")]
    file = tmp_path / "study.yml"
    file.write_text(block.content, encoding="utf-8")
    answer = is_valid("workflows", file)
    assert answer.returncode == 0, answer.stdout + answer.stderr

    steps = [step for job in yaml.safe_load(block.content)["jobs"].values() for step in job["steps"]]
    used = {step["uses"]: step.get("with", {}) for step in steps}
    assert used[f"OWNER/steer-eval@v{__version__}"].keys() <= VALIDATE.inputs.keys()
    published = used[f"OWNER/steer-eval/publish@v{__version__}"]
    required = {name for name, each in PUBLISH.inputs.items() if each.get("required")}
    assert required <= published.keys() <= PUBLISH.inputs.keys()


def test_inputs_and_outputs_that_the_page_names_are_the_actions(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")

    for name in PUBLISH.document["outputs"]:
        assert f"`{name}`" in text
    for name in ("torch-index", "token"):
        assert name in text
        assert name in PUBLISH.inputs
    assert f"steer-eval=={__version__}" in text
