"""Mutations of any file, of its bytes; those that know a format are in `torch_mutations` and `text_mutations`.

Invariant: a mutation is a function of its input and of the random generator it is given, and of nothing else, so that
the number of an input and the seed of a run give the same bytes again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MAX_BYTES = 48 * 1024

Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]
"""What is changed, the generator, and other good files of the kind, to take parts from."""

_EXTREMES = {
    1: (0, 1, 0x7F, 0x80, 0xFF),
    2: (0, 1, 0x7FFF, 0x8000, 0xFFFF),
    4: (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000),
    8: (0, 1, 2**31, 2**32, 2**40, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
}


def flip_bit(content: bytes, random: Random, _others: Sequence[bytes]) -> bytes:
    if not content:
        return b"\0"
    changed = bytearray(content)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_byte(content: bytes, random: Random, _others: Sequence[bytes]) -> bytes:
    place = random.randrange(len(content) + 1)
    return content[:place] + bytes([random.randrange(256)]) + content[place + 1 :]


def truncate(content: bytes, random: Random, _others: Sequence[bytes]) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def insert(content: bytes, random: Random, _others: Sequence[bytes]) -> bytes:
    place = random.randrange(len(content) + 1)
    return content[:place] + random.randbytes(random.choice((1, 2, 4, 8, 64))) + content[place:]


def delete(content: bytes, random: Random, _others: Sequence[bytes]) -> bytes:
    start, end = _span(content, random)
    return content[:start] + content[end:]


def repeat(content: bytes, random: Random, _others: Sequence[bytes]) -> bytes:
    start, end = _span(content, random)
    return content[:end] + content[start:end] * random.choice((1, 2, 16, 300)) + content[end:]


def splice(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    return content[: random.randrange(len(content) + 1)] + other[random.randrange(len(other) + 1) :]


def extreme_integer(content: bytes, random: Random, _others: Sequence[bytes]) -> bytes:
    width = random.choice((1, 2, 4, 8))
    value = random.choice(_EXTREMES[width]).to_bytes(width, "little")
    place = random.randrange(max(len(content) - width, 0) + 1)
    return content[:place] + value + content[place + width :]


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(content) + 1)
    return start, min(len(content), start + random.choice((1, 2, 8, 32, 128)))


BYTES: tuple[Mutation, ...] = (
    flip_bit,
    flip_bit,
    set_byte,
    truncate,
    insert,
    delete,
    repeat,
    splice,
    extreme_integer,
    extreme_integer,
)


def mutated(seeds: Sequence[bytes], mutations: Sequence[Mutation], random: Random) -> bytes:
    """A good file after one to four mutations; now and then after none."""
    content = random.choice(seeds)
    for _ in range(random.choice((0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 4))):
        content = random.choice(mutations)(content, random, seeds)[:MAX_BYTES]
    return content
