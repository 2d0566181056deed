from __future__ import annotations

import pytest

from steer_eval.mentions import mentions

PATHS = [f"vectors/big_L{layer}_caa.pt" for layer in (6, 10, 14)] + ["saes/big_L14_sae.pt", "odd.bin"]


@pytest.mark.parametrize(
    ("line", "words", "named"),
    [
        ("| `vectors/big_L{6,14}_caa.pt` | two |", "vectors/big_L{6,14}_caa.pt", [0, 2]),
        ("| `saes/*_sae.pt` | SAEs |", "saes/*_sae.pt", [3]),
        ('hf_hub_download(repo, "vectors/big_L10_caa.pt")', "vectors/big_L10_caa.pt", [1]),
        ('f"vectors/{model}_L{layer}_caa.pt"', "vectors/{model}_L{layer}_caa.pt", [0, 1, 2]),
        ("load big_L6_caa.pt.", "big_L6_caa.pt", [0]),
        ("./odd.bin", "./odd.bin", [4]),
        (
            "https://example.org/lab/x/resolve/main/odd.bin?download=true",
            "//example.org/lab/x/resolve/main/odd.bin",
            [4],
        ),
        ("{saes,vectors}/big_L{6,14}_{caa,sae}.pt", "{saes,vectors}/big_L{6,14}_{caa,sae}.pt", [0, 2, 3]),
    ],
)
def test_a_line_names_files(line: str, words: str, named: list[int]) -> None:
    found = list(mentions(f"first\n{line}\nlast", PATHS))

    assert [(mention.line, mention.words) for mention in found] == [(2, words)]
    assert list(found[0].paths) == sorted(PATHS[index] for index in named)


@pytest.mark.parametrize(
    "line", ["vectors/other_L6_caa.pt", "big_L{7,8}_caa.pt", "odd.binary", "a big_L6_caa.pt2", "receipt", "", ".pt"]
)
def test_other_lines_name_none(line: str) -> None:
    assert list(mentions(line, PATHS)) == []


def test_a_name_that_stands_twice_in_a_line_is_one_mention() -> None:
    assert len(list(mentions("odd.bin odd.bin saes/big_L14_sae.pt\nodd.bin", PATHS))) == 3


def test_a_name_that_could_stand_for_too_many_is_a_template() -> None:
    """Written out, the first one would be 2**60 names."""
    bomb = "{a,b}" * 60 + ".pt"
    stars = "*a" * 190 + ".pt"

    assert [mention.words for mention in mentions(f"{bomb} {stars}", ["a" * 200 + ".pt"])] == [bomb, stars]
