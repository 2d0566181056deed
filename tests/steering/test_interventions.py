import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_eval.steering.interventions import Add, row_deltas

SIZE = 5


def vector(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_the_delta_is_the_vector_times_the_coefficient():
    assert torch.equal(Add(3, torch.tensor([1.0, -2.0, 0.5]), -2.0).delta(), torch.tensor([-2.0, 4.0, -1.0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_delta_is_float32_whatever_the_vector_is(dtype):
    assert Add(0, vector(0, dtype), 2.0).delta().dtype == torch.float32


def test_a_layer_counts_from_zero():
    with pytest.raises(ValueError, match="-1"):
        Add(-1, vector(0), 1.0)


def test_rows_without_an_edit_at_a_layer_add_zero_there():
    deltas = row_deltas([(Add(2, vector(0), 1.0),), (), (Add(0, vector(1), 3.0),)], hidden_size=SIZE)
    assert sorted(deltas) == [0, 2]
    assert torch.equal(deltas[2], torch.stack([vector(0), torch.zeros(SIZE), torch.zeros(SIZE)]))
    assert torch.equal(deltas[0], torch.stack([torch.zeros(SIZE), torch.zeros(SIZE), 3 * vector(1)]))


def test_edits_of_one_row_at_one_layer_add_up():
    deltas = row_deltas([(Add(1, vector(0), 1.0), Add(1, vector(1), -0.5))], hidden_size=SIZE)
    torch.testing.assert_close(deltas[1][0], vector(0) - 0.5 * vector(1))


def test_the_unsteered_model_touches_no_layer():
    assert row_deltas([(), ()], hidden_size=SIZE) == {}


def test_a_vector_of_another_width_is_refused():
    with pytest.raises(RuntimeError):
        row_deltas([(Add(0, torch.ones(SIZE + 1), 1.0),)], hidden_size=SIZE)


edits = st.builds(Add, st.integers(0, 3), st.integers(0, 9).map(vector), st.floats(-8, 8, width=32))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(edits, max_size=3).map(tuple), min_size=1, max_size=5))
def test_a_row_of_a_batch_is_what_it_is_alone(rows):
    together = row_deltas(rows, hidden_size=SIZE)
    for index, row in enumerate(rows):
        alone = row_deltas([row], hidden_size=SIZE)
        for layer, deltas in together.items():
            expected = alone[layer][0] if layer in alone else torch.zeros(SIZE)
            assert torch.equal(deltas[index], expected)
