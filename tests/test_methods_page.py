"""The figures of docs/methods.md are those of the packaged study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from steer_eval.formats.strict_json import read_json

ROOT = Path(__file__).parents[1]
NAME = "smollm2_L18_to_smollm2_L10"
MAPS = {"ridge": "ridge", "Procrustes": "procrustes", "random": "random"}
STATISTICS = {
    "debiased CKA": "debiased_cka",
    "SVCCA": "svcca",
    "held-out R²": "held_out_r2",
    "cosine to native": "cosine_to_native",
    "retrieval": "retrieval",
}
FIGURE = re.compile(r"(-?[0-9.]+) \((-?[0-9.]+)\)")


@pytest.fixture(scope="module")
def page() -> str:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    return text.split("Measured on SmolLM2-135M-Instruct, layer 18 to layer 10", 1)[1]


@pytest.fixture(scope="module")
def diagnostics() -> dict[str, Any]:
    path = ROOT / "artifacts" / "smollm2-135m-mature-anger" / "transfer" / f"{NAME}_diagnostics.json"
    return read_json(path)


def table(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """Titles of the columns and cells by the title of the row, of the first table."""
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert lines is not None
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()]
    return head[1:], {row[0]: row[1:] for row in rows}


def statistic(protocol: dict[str, Any], title: str) -> dict[str, Any]:
    """What a row's title names in a protocol's part of the file."""
    words = title.split(", chance")[0]
    kind, _, name = words.rpartition(": ")
    found: dict[str, Any] = (protocol["maps"][MAPS[kind]] if kind else protocol)[STATISTICS[name]]
    return found


def as_printed(value: float, like: str) -> str:
    """A value to as many decimals as a figure has."""
    return f"{value:z.{len(like.partition('.')[2])}f}"


def test_the_table_of_two_layers_is_that_of_the_published_diagnostics(page: str, diagnostics: dict[str, Any]) -> None:
    columns, rows = table(page)
    protocols = [diagnostics["protocols"][column.split(",")[0]] for column in columns]
    wrong = []
    for title, cells in rows.items():
        for column, cell, protocol in zip(columns, cells, protocols, strict=True):
            figure = FIGURE.fullmatch(cell)
            assert figure is not None, f"row {title!r}, column {column!r}: {cell!r} is no value with its null"
            test = statistic(protocol, title)
            expected = f"{as_printed(test['value'], figure[1])} ({as_printed(test['null_95'], figure[2])})"
            if cell != expected:
                wrong.append(f"row {title!r}, column {column!r}: the page says {cell}, the file {expected}")

    assert [column.split(",")[0] for column in columns] == ["recommended", "plain"]
    assert len(rows) == 9
    assert not wrong, "\n".join(wrong)


def test_what_the_table_rests_on_is_that_of_the_published_diagnostics(page: str, diagnostics: dict[str, Any]) -> None:
    before = page[: page.index("|")]
    columns, rows = table(page)
    protocols = diagnostics["protocols"]
    recommended = protocols["recommended"]
    maps = recommended["maps"]

    for column in columns:
        name, figure = column.split(", ")
        assert figure == f"{protocols[name]['n_rows']} rows", column
    assert f" {recommended['n_texts']} sentences" in before
    assert f" {diagnostics['pairs']['n']} contrast pairs" in before
    chance = {found[1] for title in rows if (found := re.search(r", chance ([0-9.]+)", title))}
    assert chance == {as_printed(maps["ridge"]["retrieval"]["chance"], "0.000")}
    few = {recommended["svcca"]["draws"], *(each["held_out_r2"]["draws"] for each in maps.values())}
    many = {recommended["debiased_cka"]["draws"]}
    many |= {each[name]["draws"] for each in maps.values() for name in ("cosine_to_native", "retrieval")}
    assert {int(count) for count in re.findall(r"([0-9]+) draws for R² and SVCCA", before)} == few
    assert {int(count) for count in re.findall(r"cosine and retrieval\s+have ([0-9]+)", before)} == many
    floor = {as_printed(1 / (count + 1), "0.000") for count in few}
    assert set(re.findall(r"is below\s+([0-9.]+[0-9])", before)) == floor
