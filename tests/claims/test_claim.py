import pytest

from steer_eval.claims.claim import Claim, Selector
from steer_eval.claims.printed import Printed


def claim(text: str, expected: bool | Printed, **select: object) -> Claim:
    return Claim("a", text, "perplexity_ratio", Selector(**select), expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("At layer {layer} with c={coef} it is {expected}.", "At layer 18 with c=+2 it is 1.750."),
        ("{label} {model}", "random small"),
        ("{unknown} and {} stay", "{unknown} and {} stay"),
    ],
)
def test_the_words_say_what_is_checked(text, words):
    select = {"model": "small", "label": "random", "layer": 18, "coef": 2.0}
    assert claim(text, Printed.parse("1.750"), **select).words == words


def test_a_truth_value_is_a_word():
    assert claim("It is {expected}.", True).words == "It is true."


def test_what_is_not_selected_stays_visible():
    assert claim("At layer {layer}.", True).words == "At layer {layer}."


def test_layer_zero_is_a_layer():
    assert claim("{layer} {coef}", True, layer=0, coef=-1.5).words == "0 -1.5"
