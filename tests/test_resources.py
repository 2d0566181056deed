from __future__ import annotations

from pathlib import Path

import pytest

import steer_eval
from steer_eval.resources import folder

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "pattern"), [("schemas", "*.schema.json"), ("cards", "*.jinja"), ("rubrics", "*"), ("tasks", "*")]
)
def test_the_data_beside_the_package_is_the_one_at_the_top(name, pattern):
    files = {path.name: path.read_bytes() for path in folder(name).glob(pattern)}

    assert files
    assert files == {path.name: path.read_bytes() for path in (ROOT / name).glob(pattern)}


def test_an_editable_install_reads_the_folders_themselves():
    if (Path(steer_eval.__file__).parent / "_data").is_dir():
        pytest.skip("steer-eval is installed from a wheel")

    assert folder("schemas") == Path(steer_eval.__file__).parents[1] / "schemas"
