"""Mutations of files: of their bytes, and of what their bytes mean.

Invariant: a mutation is a function of its input and of the random generator it is given, and of nothing else, so that
the number of an input and the seed of a run give the same bytes again.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from fuzz import assemble as a

MAX_BYTES = 48 * 1024

Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]
"""What is changed, the generator, and other good files of the kind, to take parts from."""

_EXTREMES = {
    1: (0, 1, 0x7F, 0x80, 0xFF),
    2: (0, 1, 0x7FFF, 0x8000, 0xFFFF),
    4: (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000),
    8: (0, 1, 2**31, 2**32, 2**40, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
}


# Bytes


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


# Pickles

_GLOBALS = (
    b"cos\nsystem\n",
    b"cposix\nsystem\n",
    b"csubprocess\nPopen\n",
    b"cbuiltins\neval\n",
    b"c__builtin__\nexec\n",
    b"cbuiltins\ngetattr\n",
    b"cbuiltins\nbytearray\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nDoubleStorage\n",
    b"ctorch\nCharStorage\n",
    b"ctorch\nUntypedStorage\n",
    b"ctorch\nTensor\n",
    b"ctorch\nempty\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch._utils\n_rebuild_sparse_tensor\n",
    b"ctorch.jit\nload\n",
    b"ccollections\nOrderedDict\n",
    b"ccollections\nCounter\n",
    b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n",
    b"cnumpy._core.multiarray\n_reconstruct\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"c_codecs\nencode\n",
    b"cnumpy\nfromfile\n",
)
_INSTRUCTIONS = (
    *(bytes([code]) for code in b"NRbQtusae]})(012\x85\x86\x87\x88\x89\x81\x90\x91\x93.ol"),
    a.call(b"cos\nsystem\n", a.text("touch pwned")),
    b"ios\nsystem\n",
    b"\x80\x02",
    b"\x80\x05",
    b"\x95\x08\0\0\0\0\0\0\0",
    b"\x82\x01",
    b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"X\xff\xff\xff\x7f",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x8b\xff\xff\xff\x7f",
    b"I999999999999999999999\n",
    b"S'x'\n",
    b"Vx\n",
    b"F1e999\n",
    b"L5L\n",
    b"p0\n",
    b"g0\n",
    a.ORDERED_DICT,
    a.NONE,
)


def _argument(random: Random) -> bytes:
    """A value as a pickle pushes it."""
    choice = random.randrange(9)
    if choice < 3:
        return a.integer(random.choice((0, 1, -1, 2, 3, 4, 7, 255, 2**31, 2**40, 2**61, -(2**63), 2**200, 2**2000)))
    if choice == 3:
        return a.real(random.choice((0.0, -1.5, float("nan"), float("inf"), 1e308)))
    if choice == 4:
        return a.text(random.choice(("", "0", "1", "cuda:0", "meta", "\ud800", "<", ">", "|", "O", "f8", "x" * 5000)))
    if choice == 5:
        return a.get(random.randrange(48))
    if choice == 6:
        return random.choice(_GLOBALS)
    if choice == 7:
        return a.numbers([random.choice((0, 1, 2, 4, 2**31, 2**61)) for _ in range(random.randrange(4))])
    return random.choice((a.TRUE, a.FALSE, a.NONE, b")", b"]", b"}"))


def _instructions(pickle: bytes) -> list[bytes]:
    """The bytes of each instruction; what can not be told apart is one."""
    starts = []
    try:
        starts.extend(position for _, _, position in pickletools.genops(pickle) if position is not None)
    except Exception:
        starts.append(starts[-1] + 1 if starts else 0)
    return [pickle[start:end] for start, end in zip(starts, [*starts[1:], len(pickle)], strict=True)] or [pickle]


_PUSHES = b"KMJX\x8aGNhj\x88\x89)c"


def pickle_program(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """One instruction, or a run of them, is changed."""
    parts = _instructions(content)
    index = random.randrange(len(parts))
    kind = random.randrange(10)
    if kind < 4:
        pushes = [place for place, part in enumerate(parts) if part[:1] and part[0] in _PUSHES]
        index = random.choice(pushes or [index])
        if parts[index][:1] == b"c":
            parts[index] = random.choice(_GLOBALS)
        else:
            parts[index] = _argument(random)
    elif kind == 4:
        del parts[index]
    elif kind == 5:
        parts.insert(index, parts[random.randrange(len(parts))])
    elif kind == 6:
        other = random.randrange(len(parts))
        parts[index], parts[other] = parts[other], parts[index]
    elif kind == 7:
        parts.insert(index, random.choice(_INSTRUCTIONS))
    elif kind == 8:
        parts.insert(index, random.choice(_GLOBALS if random.random() < 0.5 else [_argument(random)]))
    else:
        taken = _instructions(random.choice(others))
        start = random.randrange(len(taken))
        parts[index:index] = taken[start : start + random.randrange(1, 12)]
    return b"".join(parts)


PICKLE: tuple[Mutation, ...] = (*([pickle_program] * 12), *BYTES)


# Archives


def _members(content: bytes) -> list[a.Member]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [
                a.Member(member.filename.encode(), archive.read(member))
                for member in archive.infolist()
                if member.file_size < MAX_BYTES
            ]
    except Exception:
        return []


def _deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


_NAMES = (
    b"../x",
    b"/etc/passwd",
    b"archive/constants.pkl",
    b"archive/code/__torch__.py",
    b"archive/data.pkl\0x",
    b"ARCHIVE/data.pkl",
    b"archive/DATA.PKL",
    b"archive\\data.pkl",
    b"archive/data/0",
    b"archive/data/00",
    b"archive/data/\xd9\xa1",
    b"archive/.data/version",
    b"archive/version",
    b"archive/byteorder",
    b"data.pkl",
    b"",
    b"a" * 300,
)
_SMALL = (b"", b"0", b"1", b"3\n", b"99999", b"9" * 5000, b"-1", b"x", b"little", b"big", b"LITTLE", b"\xff", b"64")


def archive_pickle(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """The pickle is changed, and the archive around it is good."""
    members = _members(content)
    for index, member in enumerate(members):
        if member.name.endswith(b"data.pkl"):
            programs = [each.content for other in others for each in _members(other) if each.name.endswith(b"data.pkl")]
            pickled = pickle_program(member.content, random, programs or [member.content])
            members[index] = replace(member, content=pickled)
            return a.archive(members)
    return flip_bit(content, random, others)


def archive_layout(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Members, headers and directory are changed; the rest of the archive is good."""
    members = _members(content)
    if not members:
        return splice(content, random, others)
    index = random.randrange(len(members))
    member = members[index]
    kind = random.randrange(16)
    zip64 = True
    if kind == 0:
        members[index] = replace(member, name=random.choice(_NAMES))
    elif kind == 1:
        members.insert(random.randrange(len(members) + 1), replace(member, name=random.choice((member.name, *_NAMES))))
    elif kind == 2:
        members[index] = replace(member, content=_deflated(member.content), method=8, size=len(member.content))
    elif kind == 3:
        members[index] = replace(member, content=_deflated(b"\0" * 2**20), method=8, size=2**20)
    elif kind == 4:
        members[index] = replace(member, method=random.choice((1, 8, 9, 12, 14, 93, 99)))
    elif kind == 5:
        members[index] = replace(member, size=random.choice((0, 1, 2**31, 2**32 - 1, len(member.content) + 1)))
    elif kind == 6:
        members[index] = replace(member, flags=random.randrange(2**16))
    elif kind == 7:
        members[index] = replace(member, local_name=random.choice((*_NAMES, members[0].name)))
    elif kind == 8:
        extra = random.choice((b"", b"Z", b"\1\0\x10\0" + b"\xff" * 16, b"FB\1\0Z", b"up\5\0\1aaaa", b"Z" * 70))
        members[index] = replace(member, extra=extra)
    elif kind == 9:
        members[index] = replace(member, offset=random.choice((0, 1, 30, 64, 2**31, 2**32 - 1)))
    elif kind == 10:
        del members[index]
    elif kind == 11:
        random.shuffle(members)
    elif kind == 12:
        members[index] = replace(member, content=random.choice(_SMALL))
    elif kind == 13:
        members[index] = replace(member, content=random.choice(BYTES)(member.content, random, [member.content]))
    elif kind == 14:
        zip64 = False
    else:
        zeros, end = b"\0" * 64, b"PK\5\6" + b"\0" * 18
        before, after = random.choice(((zeros, b""), (b"", zeros), (content, b""), (b"", end)))
        return before + a.archive(members) + after
    comment = b"" if random.random() < 0.95 else b"PK\5\6"
    return a.archive(members, zip64=zip64, comment=comment)


def archive_end(content: bytes, random: Random, _others: Sequence[bytes]) -> bytes:
    """A number in the directory or behind it is changed."""
    start = content.find(b"PK\1\2")
    if start < 0:
        return content[::-1]
    return content[:start] + extreme_integer(content[start:], random, ())


TORCH: tuple[Mutation, ...] = (
    *([archive_pickle] * 14),
    *([archive_layout] * 8),
    archive_end,
    archive_end,
    *BYTES[:3],
    truncate,
    insert,
    splice,
    extreme_integer,
)


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


def mutated(seeds: Sequence[bytes], mutations: Sequence[Mutation], random: Random) -> bytes:
    """A good file after one to four mutations; now and then after none."""
    content = random.choice(seeds)
    for _ in range(random.choice((0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 4))):
        content = random.choice(mutations)(content, random, seeds)[:MAX_BYTES]
    return content
