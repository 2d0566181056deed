"""Mutations of PyTorch files: of the pickle, and of the archive around it.

Invariant: a mutation is a function of its input and of the random generator it is given, and of nothing else.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from fuzz import assemble as a
from fuzz.mutations import BYTES, MAX_BYTES, Mutation, extreme_integer, flip_bit, insert, splice, truncate

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
