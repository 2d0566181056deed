from __future__ import annotations

import hashlib
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steer_eval.digest import sha256_file, sha256_text, sha256_value, sha256_vector

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_files_and_texts_are_digested_by_their_bytes(tmp_path):
    (tmp_path / "x").write_bytes("Grüße\n".encode())

    assert sha256_text("") == EMPTY
    assert sha256_file(tmp_path / "x") == sha256_text("Grüße\n") == hashlib.sha256("Grüße\n".encode()).hexdigest()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_a_value_survives_json_with_its_digest(value):
    assert sha256_value(json.loads(json.dumps(value))) == sha256_value(value)


@given(st.dictionaries(st.text(max_size=4), VALUES, min_size=2, max_size=4))
def test_the_order_of_keys_does_not_matter_and_that_of_items_does(value):
    assert sha256_value(dict(reversed(value.items()))) == sha256_value(value)
    items = list(value)
    assert sha256_value(items[::-1]) != sha256_value(items)


@given(VALUES, VALUES)
def test_different_values_have_different_digests(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

    assert (sha256_value(one) == sha256_value(other)) is same


def test_vectors_are_digested_by_their_values_not_their_layout():
    values = np.arange(6, dtype=np.float32)

    assert sha256_vector(values) == hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
    assert sha256_vector(np.arange(12, dtype=np.float32)[::2] / 2) == sha256_vector(values)
    assert sha256_vector(values.astype(">f4")) == sha256_vector(values)
    assert sha256_vector(values[::-1]) != sha256_vector(values)
