"""Cells with a number beside its null are read as a whole, where it is known which transfer they are of."""

from __future__ import annotations

import re

import pytest
from whole_studies import whole

from steer_eval.audit import audit_text
from steer_eval.claims.extract import tested
from steer_eval.inventory import Inventory, Root, take_inventory

FILE = "transfer/tiny_L3_to_tiny_L1_diagnostics.json"
TABLE = "| map | held-out R² |\n|---|---|\n| ridge | {cell} |\n"


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    place = whole(tmp_path_factory.mktemp("tested"))
    return take_inventory([Root(place.model, "m/", "model"), Root(place.data, "d/", "dataset")])


@pytest.fixture(scope="module")
def cell(inventory: Inventory) -> str:
    [document] = inventory.of("transfer_diagnostics")
    test = document.value["protocols"]["recommended"]["maps"]["ridge"]["held_out_r2"]
    return f"{test['value']:.3f} ({test['null_95']:.3f}), p {test['p']:.3f}"


def words(inventory: Inventory, text: str) -> list[tuple[str, str]]:
    return [(each.claim.measure, each.word) for each in audit_text(text, "x.md", inventory, ()).verdicts]


def test_value_null_and_p_are_three_claims(inventory: Inventory, cell: str) -> None:
    measures = ["transfer_heldout_r2", "transfer_heldout_r2_null", "transfer_heldout_r2_p"]

    text = f"From `{FILE}`:\n\n{TABLE.format(cell=cell)}"
    assert words(inventory, text) == [(measure, "reproduced") for measure in measures]


def test_each_of_them_can_be_wrong(inventory: Inventory, cell: str) -> None:
    right = re.findall(r"-?[0-9.]+", cell)
    for index, part in enumerate(right):
        numbers = [*right]
        numbers[index] = f"{float(part) + 0.25:.3f}"
        wrong = "{} ({}), p {}".format(*numbers)
        found = [word for _, word in words(inventory, f"From `{FILE}`:\n\n{TABLE.format(cell=wrong)}")]
        assert found == ["contradicted" if at == index else "reproduced" for at in range(3)]


@pytest.mark.parametrize("before", ["", "Measured by others:", "From `transfer/other_diagnostics.json`:"])
def test_without_the_file_nothing_is_understood(inventory: Inventory, cell: str, before: str) -> None:
    found = words(inventory, f"{before}\n\n{TABLE.format(cell=cell)}")

    assert {word for _, word in found} == {"not-checkable"}


@pytest.mark.parametrize(
    ("title", "text", "measure"),
    [
        ("held-out R²", "0.701 (-0.018), p 0.024", "transfer_heldout_r2"),
        ("**SVCCA**", "0.854 (0.019), p = 0.024", "transfer_svcca"),
        ("held-out R²", "0.701", None),
        ("held-out R²", "0.701 ± 0.018, p 0.024", None),
        ("accuracy", "0.701 (0.018), p 0.024", None),
    ],
)
def test_only_whole_cells_of_known_columns(title: str, text: str, measure: str | None) -> None:
    assert tested.tested_measure(title, text) == measure
