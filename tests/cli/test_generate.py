"""`steer-eval generate` as a user meets it, on a tiny model."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from studies import provenance, write_study
from tiny_models import BLOCKS, HIDDEN, random_vector, save_tiny_model
from tiny_study import document

from steer_eval.cli.main import cli
from steer_eval.errors import SteerEvalError
from steer_eval.evaluation.generation import Request
from steer_eval.evaluation.serial import generate_serial
from steer_eval.formats import schema
from steer_eval.formats.vector import SteeringVector, file_name, write_vector
from steer_eval.model import LanguageModel
from steer_eval.steering.interventions import Add

LAYERS = (0, 1, 2)
PROMPT = "Was it the rain that woke her?"
COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Place:
    repo: Path
    base: Path
    lm: LanguageModel

    def file(self, layer: int) -> str:
        return str(self.repo / file_name("tiny", layer))

    def expected(self, prompt: str, layer: int | None, coef: float, *, max_new_tokens: int) -> str:
        edits = () if layer is None else (Add(layer, random_vector(layer), coef),)
        request = Request(tuple(self.lm.chat_ids(prompt)), edits)
        generation = generate_serial(self.lm, request, max_new_tokens=max_new_tokens)
        assert generation.tie_at is None
        return self.lm.decode(generation.ids)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A model repo with vectors, and its model beside it; no dataset repo."""
    root = tmp_path_factory.mktemp("generate")
    lm = save_tiny_model(root / "base")
    described = document()
    described["extraction"]["layers"] = list(LAYERS)
    write_study(root / "tiny", described)
    (root / "tiny" / "vectors").mkdir()
    for layer in LAYERS:
        vector = SteeringVector(random_vector(layer).numpy(), layer, provenance("tiny", layer, 4.0))
        write_vector(root / "tiny" / file_name("tiny", layer), vector)
    return Place(root / "tiny", root / "base", lm)


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def generate(*arguments: str, stdin: bytes = b"", limit: int = 8) -> Result:
    whole = ["generate", *arguments, "--max-new-tokens", str(limit)]
    return CliRunner().invoke(cli, whole, input=stdin, catch_exceptions=False)


def printed(*arguments: str, stdin: bytes = b"", limit: int = 8) -> dict[str, Any]:
    answer = generate(*arguments, "--json", stdin=stdin, limit=limit)
    assert answer.exit_code == 0
    document: dict[str, Any] = json.loads(answer.stdout)
    schema.check(document, "generation", file="standard output")
    return document


def refused(*arguments: str, stdin: bytes = b"") -> SteerEvalError:
    with pytest.raises(SteerEvalError) as caught:
        generate(*arguments, stdin=stdin)
    return caught.value


def test_every_variant_of_every_prompt_as_on_the_serial_path(place: Place) -> None:
    arguments = ["--layer", "2", "--layer", "0", "--coef", "1", "--coef", "-2.5"]
    answer = printed(str(place.repo), "--prompt", PROMPT, "--prompt", "Why?", *arguments)

    variants = [(None, 0.0), (2, 1.0), (2, -2.5), (0, 1.0), (0, -2.5)]
    assert [one["prompt"] for one in answer["prompts"]] == [PROMPT, "Why?"]
    for one in answer["prompts"]:
        assert [(each["layer"], each["coef"]) for each in one["answers"]] == variants
        for each, (layer, coef) in zip(one["answers"], variants, strict=True):
            assert each["gen"] == place.expected(one["prompt"], layer, coef, max_new_tokens=8)
            assert each["n_tokens"] == 8
    assert answer["max_new_tokens"] == 8
    assert answer["system"] is None


def test_json_says_what_was_steered_with_what(place: Place) -> None:
    answer = printed(str(place.repo), "--prompt", PROMPT)

    assert answer["schema"] == "steer-eval/generate/1"
    assert answer["target"] == str(place.repo)
    assert answer["model"]["name"] == "lab/tiny-base"
    assert answer["model"]["revision"] == "local"
    [vector] = answer["vectors"]
    assert vector["layer"] == 1
    assert vector["file"] == place.file(1)
    assert vector["norm"] == pytest.approx(4.0)
    assert vector["model"] == "lab/tiny-base"
    assert vector["same_weights"] is False


def test_people_see_the_prompt_and_the_answers_side_by_side(place: Place) -> None:
    answer = generate(str(place.repo), "--prompt", PROMPT, "--layer", "1", "--coef", "4", "--coef", "0")

    assert answer.exit_code == 0
    lines = [line.rstrip() for line in answer.stdout.splitlines()]
    assert max(len(line) for line in lines[2:]) <= 80
    assert lines[0] == "lab/tiny-base (local), float32"
    assert lines[1] == f"layer 1: {place.file(1)}, norm 4"
    assert f"> {PROMPT}" in lines
    heads = [line.split("  ")[0] + "|" + line.split("  ")[-1].strip() for line in lines if line.startswith("unst")]
    assert heads == ["unsteered|layer 1, c = +4"]
    assert "layer 1, c = +0" in lines
    assert "[8 tokens, cut off, same as unsteered]" in lines
    assert "loading lab/tiny-base" in answer.stderr
    assert "loading" not in answer.stdout


@pytest.mark.parametrize(("width", "rows"), [("40", 3), ("80", 2), ("200", 1)])
def test_there_are_as_many_columns_as_have_room(
    place: Place, monkeypatch: pytest.MonkeyPatch, width: str, rows: int
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    answer = generate(str(place.repo), "--prompt", PROMPT, "--coef", "1", "--coef", "2")

    rules = [line for line in answer.stdout.splitlines() if line.startswith("──")]
    assert len(rules) == rows
    assert len(set(rules[: rows - 1 or 1])) == 1
    assert max(map(len, rules)) <= int(width)


@pytest.mark.parametrize("prompt", ["[red]x[/nope] :smile:", "a\x1b[2Jb", "a\u202eb"])
def test_a_prompt_is_neither_markup_nor_a_command(place: Place, prompt: str) -> None:
    answer = generate(str(place.repo), "--prompt", prompt, "--system", prompt)

    shown = prompt.replace("\x1b", "\N{REPLACEMENT CHARACTER}").replace("\u202e", "\N{REPLACEMENT CHARACTER}")
    assert f"> {shown}\n" in answer.stdout
    assert f"system prompt: {shown}\n" in answer.stdout
    assert "\x1b" not in answer.stdout
    assert printed(str(place.repo), "--prompt", prompt)["prompts"][0]["prompt"] == prompt


def test_the_chosen_layer_is_said(place: Place) -> None:
    assert "layer 1, the middle one of 0, 1, 2" in generate(str(place.repo), "--prompt", PROMPT).stderr
    assert "the middle one" not in generate(str(place.repo), "--prompt", PROMPT, "--layer", "1").stderr


def test_a_prompt_from_standard_input(place: Place) -> None:
    answer = printed(str(place.repo), "--prompt", "-", stdin=f"{PROMPT}\nÄnd then?\n".encode())
    assert answer["prompts"][0]["prompt"] == f"{PROMPT}\nÄnd then?"
    assert refused(str(place.repo), "--prompt", "-").message == "prompt 1 is empty"
    assert "standard input is not UTF-8" in refused(str(place.repo), "--prompt", "-", stdin=b"\xff\xfe").message


def test_prompts_and_coefficients_from_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEER_EVAL_GENERATE_PROMPT", f"{PROMPT}\nWhy?")
    monkeypatch.setenv("STEER_EVAL_GENERATE_COEF", "1 -2")
    whole = ["generate", str(place.repo), "--json", "--max-new-tokens", "2"]
    answer = CliRunner().invoke(cli, whole, catch_exceptions=False)
    document = json.loads(answer.stdout)
    assert [one["prompt"] for one in document["prompts"]] == [PROMPT, "Why?"]
    assert [each["coef"] for each in document["prompts"][0]["answers"]] == [0, 1, -2]


def test_the_system_prompt_changes_the_text(place: Place) -> None:
    plain = printed(str(place.repo), "--prompt", PROMPT)
    told = printed(str(place.repo), "--prompt", PROMPT, "--system", "Be firm.")
    assert told["system"] == "Be firm."
    assert told["prompts"][0]["answers"][0]["gen"] != plain["prompts"][0]["answers"][0]["gen"]


def test_a_coefficient_or_layer_given_twice_is_tried_once(place: Place) -> None:
    twice = ["--coef", "2", "--coef", "2.0", "--layer", "0", "--layer", "0"]
    answers = printed(str(place.repo), "--prompt", PROMPT, *twice)["prompts"][0]["answers"]
    assert [(each["layer"], each["coef"]) for each in answers] == [(None, 0), (0, 2)]


def test_a_lone_vector_at_any_layer_of_a_base(place: Place) -> None:
    base = ["--base", str(place.base), "--prompt", PROMPT]
    own = printed(place.file(2), *base)
    assert own["prompts"] == printed(str(place.repo), "--layer", "2", "--prompt", PROMPT)["prompts"]
    assert own["model"]["name"] == str(place.base)
    moved = printed(place.file(2), *base, "--layer", str(BLOCKS - 1))
    assert moved["vectors"][0]["layer"] == BLOCKS - 1
    request = Request(tuple(place.lm.chat_ids(PROMPT)), (Add(BLOCKS - 1, random_vector(2), 1.0),))
    expected = place.lm.decode(generate_serial(place.lm, request, max_new_tokens=8).ids)
    assert moved["prompts"][0]["answers"][1]["gen"] == expected


def test_a_legacy_vector_gives_the_same_text(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"vector": random_vector(2), "norm": 4.0, "layer": 2, "model": "lab/tiny-base", "n_pairs": 5}, path)
    base = ["--base", str(place.base), "--prompt", PROMPT]
    old = printed(str(path), *base)
    assert old["prompts"] == printed(place.file(2), *base)["prompts"]
    assert old["vectors"][0]["same_weights"] is None


def test_the_base_that_a_lone_vector_names_comes_from_the_hub(place: Place) -> None:
    """The Hub's cache has the repo, as after a download; nothing else says where it is."""
    cached = Path(os.environ["HF_HOME"]) / "hub" / "models--lab--tiny-base"
    shutil.copytree(place.base, cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    try:
        answer = printed(place.file(1), "--prompt", PROMPT)
    finally:
        shutil.rmtree(cached)
    assert (answer["model"]["name"], answer["model"]["revision"]) == ("lab/tiny-base", COMMIT)
    assert answer["prompts"] == printed(str(place.repo), "--prompt", PROMPT)["prompts"]
    unreachable = refused(place.file(1), "--prompt", PROMPT)
    assert "lab/tiny-base@main can't be fetched" in unreachable.message
    assert "--base" in unreachable.fix


def test_other_weights_than_the_vectors_are_said_on_standard_error(place: Place, tmp_path: Path) -> None:
    answer = generate(str(place.repo), "--prompt", PROMPT)
    assert f"warning: {place.file(1)} was extracted from other weights" in answer.stderr
    revealed = printed(str(place.repo), "--prompt", PROMPT)["model"]["weights_sha256"]
    same = tmp_path / "same.safetensors"
    named = {**provenance("tiny", 1, 4.0), "weights_sha256": revealed}
    write_vector(same, SteeringVector(random_vector(1).numpy(), 1, named))
    base = ["--base", str(place.base), "--prompt", PROMPT]
    assert "warning" not in generate(str(same), *base).stderr
    assert printed(str(same), *base)["vectors"][0]["same_weights"] is True


def test_a_vector_of_another_width_names_both_and_the_model(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    wide = SteeringVector(random_vector(1, size=HIDDEN + 2).numpy(), 1, provenance("other", 1, 4.0))
    write_vector(path, wide)
    message = refused(str(path), "--base", str(place.base), "--prompt", PROMPT).message
    assert f"has {HIDDEN + 2} values, but the hidden size of {place.base} is {HIDDEN}" in message
    assert "lab/other-base" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "7"], "no vector of tiny for layer 7; it has layers 0, 1, 2"),
        (["--coef", "nan"], "coefficient nan is no finite number"),
        (["--coef", "inf"], "coefficient inf is no finite number"),
        (["--prompt", " "], "prompt 2 is empty"),
        (["--model", "other"], "has no model other"),
    ],
)
def test_bad_requests_are_refused_before_a_model_is_loaded(place: Place, arguments: list[str], message: str) -> None:
    with pytest.raises(SteerEvalError) as caught:
        CliRunner().invoke(cli, ["generate", str(place.repo), "--prompt", PROMPT, *arguments], catch_exceptions=False)
    assert message in caught.value.message


def test_a_layer_beyond_the_model(place: Place) -> None:
    message = refused(place.file(1), "--base", str(place.base), "--prompt", PROMPT, "--layer", "9").message
    assert message == f"there is no layer 9: {place.base} has {BLOCKS} decoder blocks, 0 to {BLOCKS - 1}"


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("repo", ["--base", "x", "--prompt", "x"], "--base is for a vector file"),
        ("file", ["--model", "tiny", "--prompt", "x"], "is a vector file"),
        ("repo", [], "Missing option '--prompt'"),
        ("repo", ["--prompt", "x", "--layer", "-1"], "-1 is not in the range"),
        ("repo", ["--prompt", "x", "--coef", "much"], "'much' is not a valid float"),
    ],
)
def test_wrong_usage_exits_with_2(place: Place, target: str, arguments: list[str], message: str) -> None:
    answer = generate(str(place.repo) if target == "repo" else place.file(1), *arguments)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert answer.stdout == ""
