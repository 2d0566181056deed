"""Mutations of JSON, of the JSON of safetensors files, of YAML and of paths.

Invariant: a mutation is a function of its input and of the random generator it is given, and of nothing else.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from random import Random

from fuzz.mutations import BYTES, Mutation

# JSON

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|-?[0-9][0-9.eE+-]*|[\[\]{},:]|[A-Za-z]+|\s+|.', re.DOTALL)
_JSON_VALUES = (
    "NaN", "-Infinity", "Infinity", "1e999", "-1e999", "1e-999", "-0", "-0.0", "0", "1", "-1", "0.5", "1.0", "1e400",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 30, "9" * 5000, "01", "+1", ".5",
    "1.", "null", "true", "false", "[]", "{}", '""', '"a"', '"3"', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"',
    '"\\x"', '"\\ud83d\\ude00"', '"' + "x" * 3000 + '"', '"../x"', '"/etc/passwd"', "[" * 40 + "]" * 40,
    "[" * 90 + "]" * 90, "[" * 5000, '{"a":' * 900 + "1" + "}" * 900, '{"a": 1, "a": 2}', "[NaN, NaN]", "/* c */",
    "'a'", "\ufeff", "\x00",
)  # fmt: skip
# Files that are given as a whole: what one token can't do.
_JSON_WHOLE = ("", " ", "\n\n", "null", "[]", "[" * 100000, '{"a":' * 20000, "[" * 980 + "]" * 980, "1" * 20000)


def json_token(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """One token is changed."""
    tokens = _TOKEN.findall(content.decode("utf-8", "surrogateescape"))
    if not tokens:
        return random.choice(others)
    index = random.randrange(len(tokens))
    kind = random.randrange(12)
    if kind < 6:
        wanted = [place for place, part in enumerate(tokens) if not part.isspace() and part not in "[]{},:"]
        tokens[random.choice(wanted or [index])] = random.choice(_JSON_VALUES)
    elif kind == 6:
        del tokens[index]
    elif kind == 7:
        other = random.randrange(len(tokens))
        tokens[index], tokens[other] = tokens[other], tokens[index]
    elif kind == 8:
        start = random.randrange(len(tokens))
        tokens[index:index] = tokens[start : start + random.randrange(1, 9)] * random.choice((1, 1, 2, 40))
    elif kind == 9:
        texts = [token for token in tokens if token.startswith('"')]
        places = [place for place, token in enumerate(tokens) if token.startswith('"')]
        if places:
            tokens[random.choice(places)] = random.choice(texts)
    elif kind == 10:
        tokens.insert(index, random.choice(("[", "]", "{", "}", ",", ":", "\n", "\r", "\t", " ", "\x0b", "\u2028")))
    elif random.random() < 0.1:
        tokens = [random.choice(_JSON_WHOLE)]
    else:
        tokens.insert(index, random.choice(_JSON_VALUES))
    return "".join(tokens).encode("utf-8", "surrogateescape")


def line(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Whole lines are changed."""
    lines = content.split(b"\n")
    index = random.randrange(len(lines))
    kind = random.randrange(6)
    if kind == 0:
        del lines[index]
    elif kind == 1:
        lines.insert(random.randrange(len(lines) + 1), lines[index])
    elif kind == 2:
        lines.insert(index, random.choice((b"", b" ", b"\r", b"\xff", b"null", b"[]", b"{}", b"---", b"# x")))
    elif kind == 3:
        lines[index] = json_token(lines[index], random, others)
    elif kind == 4:
        lines[index] += b"\r"
    else:
        taken = random.choice(others).split(b"\n")
        lines.insert(index, random.choice(taken))
    return b"\n".join(lines)


JSON: tuple[Mutation, ...] = (*([json_token] * 14), *BYTES)
JSONL: tuple[Mutation, ...] = (*([json_token] * 10), *([line] * 6), *BYTES)


def safetensors_header(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A token of the header is changed, and its length is counted again."""
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if not 0 < length <= len(content) - 8:
        return json_token(content, random, others)
    header = content[8 : 8 + length]
    if random.random() < 0.5:
        numbers = list(re.finditer(rb"[0-9]+", header))
        if numbers:
            match = random.choice(numbers)
            number = random.choice(
                (b"0", b"1", b"4", b"8", b"16", b"-1", b"2305843009213693952", b"9223372036854775807", b"1.0", b"true")
            )
            header = header[: match.start()] + number + header[match.end() :]
    elif random.random() < 0.3:
        codes = list(re.finditer(rb'"(F|BF|I|U|BOOL|C)[0-9_A-Z]*"', header))
        if codes:
            match = random.choice(codes)
            code = random.choice((b"F64", b"F16", b"BF16", b"I8", b"BOOL", b"F8_E4M3", b"F4", b"C64", b"", b"f32"))
            header = header[: match.start()] + b'"' + code + b'"' + header[match.end() :]
    else:
        header = json_token(header, random, others)
    if random.random() < 0.8:
        header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def safetensors_agreeing(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Tensors of other shapes and types that still agree with their bytes."""
    length = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    try:
        header = json.loads(content[8 : 8 + length])
        tensors = {key: value for key, value in header.items() if key != "__metadata__"}
        position, data = 0, b""
        for value in tensors.values():
            size, code = random.choice(((4, "F32"), (4, "F32"), (2, "F16"), (2, "BF16"), (1, "U8"), (8, "F64")))
            if random.random() < 0.4:
                value["shape"] = [random.choice((0, 1, 2, 3, 4, 6, 2**61)) for _ in range(random.randrange(4))]
            count = 1
            for side in value["shape"]:
                count *= side
            if not 0 <= count <= 4096:
                return safetensors_header(content, random, others)
            value.update(dtype=code, data_offsets=[position, position + count * size])
            data += random.choice((bytes(count * size), random.randbytes(count * size)))
            position += count * size
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return safetensors_header(content, random, others)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


SAFETENSORS: tuple[Mutation, ...] = (*([safetensors_header] * 10), *([safetensors_agreeing] * 4), *BYTES)


# YAML

_YAML_VALUES = (
    "*a", "&a x", "&a [1]", "<<: {x: 1}", "!!python/object/apply:os.system [touch pwned]", "!!python/name:os.system",
    "!!python/tuple [1]", "!!binary aGk=", "!!set {a}", "!!omap [a: 1]", "!!timestamp 2024-01-01", "!!int x",
    "!!int ''", "!!float .", "!!bool maybe", "!!null x", "!!map [1]", "!!seq {a: 1}", "!!str {a: 1}", "!x y", "!",
    "!!", "!<tag:x> 1", "2024-01-01", "2024-99-99", "2024-01-01T00:00:00.123456789+99:99", "1:30",
    ":".join("1" * 400), ":".join("1" * 400) + ".0", "-1:1.5", ".nan", "-.inf", ".NaN", "1e999", "1_0", "0x", "0xff",
    "0b1", "010", "08", "0o7", "_", "+", "-", "=", "<<", "~", "yes", "No", "null", "''", '""', '"\\ud800"',
    '"\\U00110000"', '"\\x00"', '"\\', "'", "[", "]", "{", "}", "[" * 300, "{" * 300, "- " * 200, "? " * 100,
    "[[1, 2], [3]]", "{a: 1, a: 2}", "{1: 2}", "{[a]: 1}", "{? a}", "|", ">", "|9", ">-", "|\n  x", "@", "`",
    "%YAML 9.9", "%TAG ! x", "---", "...", "--- a", "\t", "\tx: 1", "\x85", "\ufeff", "\u2028", "\0", "#", "9" * 30,
    "9" * 5000, "x" * 3000, "-1", "0", "1", "1.5", "lab/tiny", "../x", "true",
)  # fmt: skip


def yaml_token(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """One word is changed."""
    tokens = re.findall(r"[^\s:,\[\]{}]+|\s+|.", content.decode("utf-8", "surrogateescape"))
    if not tokens:
        return random.choice(others)
    index = random.randrange(len(tokens))
    kind = random.randrange(8)
    if kind < 4:
        wanted = [place for place, part in enumerate(tokens) if not part.isspace() and part not in "[]{},:"]
        tokens[random.choice(wanted or [index])] = random.choice(_YAML_VALUES)
    elif kind == 4:
        tokens.insert(index, random.choice(_YAML_VALUES))
    elif kind == 5:
        del tokens[index]
    elif kind == 6:
        start = random.randrange(len(tokens))
        tokens[index:index] = tokens[start : start + random.randrange(1, 9)]
    else:
        tokens[index] = random.choice((" ", "\n", "\n  ", "\t", "\n- ", ": ", ", "))
    return "".join(tokens).encode("utf-8", "surrogateescape")


YAML: tuple[Mutation, ...] = (*([yaml_token] * 12), *([line] * 4), *BYTES)


# Paths

_PATHS = (b"..", b".", b"", b"out", b"in", b"loop", b"folder", b"file.txt", b"\0", b"\xff", b"a" * 300, b"~", b"out/x")


def path_part(content: bytes, random: Random, _others: Sequence[bytes]) -> bytes:
    """One part of a path is changed."""
    parts = content.split(b"/")
    parts.insert(random.randrange(len(parts) + 1), random.choice(_PATHS))
    return b"/".join(parts)


PATH: tuple[Mutation, ...] = (*([path_part] * 10), *BYTES)
