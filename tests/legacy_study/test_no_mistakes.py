"""Changes of a study without `study.yaml` that are no mistakes bring no finding."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import legacy_contents as contents
import legacy_edits as edits
import pytest
from legacy import MANIFESTS, Legacy


def shuffled_rows(place: Legacy, draw: random.Random) -> None:
    file = draw.choice(sorted(place.data.glob("judge_*.jsonl")))
    lines = file.read_text(encoding="utf-8").splitlines()
    draw.shuffle(lines)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def unknown_key(place: Legacy, draw: random.Random) -> None:
    known = ("sweep_*", "judge_*", "*_eval")
    file = draw.choice(sorted(path for name in known for path in place.data.glob(f"{name}.jsonl")))
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    draw.choice(rows)["remark"] = {"measured": "twice"}
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def rounded_ratio(place: Legacy, draw: random.Random) -> None:
    file = draw.choice(["data/judge_owl_transfer.jsonl", "data/judge_phase_i.jsonl"])
    for number in range(1, len(place.path(file).read_text(encoding="utf-8").splitlines()) + 1):
        decimals = draw.choice([2, 3, 4])
        place.edit_line(
            file,
            number,
            lambda row, decimals=decimals: row.update(ppl_ratio=row["ppl_ratio"] and round(row["ppl_ratio"], decimals)),
        )


def rounded_sweep(place: Legacy, draw: random.Random) -> None:
    """All perplexities of one row as a person would print them; the copies of them have all their digits."""

    def change(row: dict[str, Any]) -> None:
        row.update(ppl=round(row["ppl"], 4), ppl_ratio=round(row["ppl_ratio"], 4))

    place.edit_line("data/sweep_fox_large.jsonl", draw.randint(1, 12), change)
    place.path("data/size_comparison.json").unlink()
    place.edit_text("data/README.md", ", `size_comparison.json`", "")


def rounded_features(place: Legacy, draw: random.Random) -> None:
    """The delta and both means are rounded one by one, so that they need not add up to the last digit."""

    def change(table: dict[str, Any]) -> None:
        for row in table["top_features"]:
            row.update({key: round(value, 3) for key, value in row.items() if key != "feature_id"})

    place.edit(draw.choice([edits.FEATURES, edits.LARGE_FEATURES]), change)


def size_in_another_unit(place: Legacy, draw: random.Random) -> None:
    unit, base = draw.choice([("kB", 1000), ("KB", 1000), ("KB", 1024), ("KiB", 1024)])
    size = place.path(edits.SAE).stat().st_size / base
    shown = draw.choice(
        [f"{size:.1f} {unit}", f"{round(size)} {unit}", f"{int(size) + 1} {unit}", f"~{size:.0f}{unit}"]
    )
    edits.reworded(edits.CARD, r"\| [0-9]+ KB \|", f"| {shown} |")(place)


def size_of_all_files(place: Legacy, draw: random.Random) -> None:
    size = sum(path.stat().st_size for path in (place.model / "vectors").glob("fox_large_L*_caa.pt"))
    edits.reworded(edits.CARD, "~[0-9.]+ KB each", f"{size / 1000:.1f} KB total")(place)


def size_of_something_else(place: Legacy, draw: random.Random) -> None:
    place.edit_text(edits.CARD, "the maps", "the maps, from 120 MB of text in 3 rows")


def extra_file(place: Legacy, draw: random.Random) -> None:
    name = draw.choice(["notes.txt", "figures/plot.csv", "logs/run.log", "extra.json", "more.jsonl", "settings.yaml"])
    path = draw.choice([place.model, place.data]) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"a": 1}\n', encoding="utf-8")


def sweep_in_another_order(place: Legacy, draw: random.Random) -> None:
    file = place.data / draw.choice(["sweep_fox_large.jsonl", "sweep_fox_small.jsonl"])
    lines = file.read_text(encoding="utf-8").splitlines()
    draw.shuffle(lines)
    file.write_text("\n".join(lines), encoding="utf-8")


def card_names_a_file_otherwise(place: Legacy, draw: random.Random) -> None:
    old = "`vectors/transfer_map_large_to_small.pt`"
    new = draw.choice(
        ["`./vectors/transfer_map_large_to_small.pt`", "`transfer_map_{direction}.pt`", "`vectors/*map*.pt`"]
    )
    place.edit_text(edits.CARD, old, new)


def card_names_a_file_of_the_data(place: Legacy, draw: random.Random) -> None:
    place.edit_text(edits.CARD, "| `saes/*_features", "| `sweep_fox_large.jsonl` | the sweep | |\n| `saes/*_features")


def safetensors_beside(place: Legacy, draw: random.Random) -> None:
    """The carried vectors in both formats: the same thing twice is no reason to check neither."""
    from steer_eval.formats.transfer import read_transferred_pt, write_transferred

    vectors = read_transferred_pt(place.path(edits.CARRIED))
    write_transferred(place.model / "transfer" / "fox_small_transferred.safetensors", vectors)


def collapsed_rows_left_out(place: Legacy, draw: random.Random) -> None:
    """Judges need not say anything of cells without text, nor mark them."""
    place.edit_line(edits.OWL, draw.randint(1, 11), lambda row: row.pop("collapsed"))


def every_cell_in_the_card(place: Legacy, draw: random.Random) -> None:
    """A table of many cells names other coefficients than the features' as well."""
    rows = "".join(f"| 3B | L=5 c={coefficient:+g} | 0.5 |\n" for coefficient in contents.COEFFICIENTS)
    place.edit_text(edits.CARD, "| 0.5B |", f"{rows}| 0.5B |")


def few_cells_judged(place: Legacy, draw: random.Random) -> None:
    """Who scores a sample of the cells lacks no scores."""
    path = place.path(draw.choice([edits.OWL, edits.HARE]))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(draw.sample(lines, 3)), encoding="utf-8")


def native_vector_not_tried(place: Legacy, draw: random.Random) -> None:
    for file in (edits.TRANSFER, edits.OWL_TRANSFER, "data/judge_transfer.jsonl"):
        edits.without_line(file, 1)(place)
    place.edit_text("data/README.md", "4 variants", "3 variants")


HARMLESS: list[Callable[[Legacy, random.Random], None]] = [
    shuffled_rows,
    unknown_key,
    rounded_ratio,
    rounded_sweep,
    rounded_features,
    size_in_another_unit,
    size_of_all_files,
    size_of_something_else,
    extra_file,
    sweep_in_another_order,
    card_names_a_file_otherwise,
    card_names_a_file_of_the_data,
    safetensors_beside,
    collapsed_rows_left_out,
    every_cell_in_the_card,
    few_cells_judged,
    native_vector_not_tried,
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_what_is_no_mistake_is_no_finding(place, change, seed):
    change(place, random.Random(f"{change.__name__} {seed}"))  # noqa: S311

    assert place.findings() == MANIFESTS
