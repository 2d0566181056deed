"""The LFS objects of one repository, in the layout of git-lfs: `lfs/objects/ab/cd/abcd…`.

Invariant: a file appears under its name whole, and with the content that the name says; only `corrupt` breaks that.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path


class WrongContentError(Exception):
    """Bytes that do not have the announced SHA-256."""


class LfsStore:
    """Objects by their SHA-256."""

    def __init__(self, repository: Path) -> None:
        self.folder = repository / "lfs" / "objects"

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256[2:4] / sha256

    def __contains__(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        return self.path(sha256).stat().st_size

    def read(self, sha256: str) -> bytes:
        return self.path(sha256).read_bytes()

    def write(self, content: bytes, sha256: str | None = None) -> str:
        """Store an object; a name that is not the content's raises WrongContentError."""
        found = hashlib.sha256(content).hexdigest()
        if sha256 not in (None, found):
            raise WrongContentError(f"the object {sha256} was announced, {found} arrived")
        target = self.path(found)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(target)
        return found

    def corrupt(self, sha256: str) -> None:
        """Flip every bit of the object's last byte: as long as before, and another content."""
        path = self.path(sha256)
        content = bytearray(path.read_bytes())
        content[-1] ^= 0xFF
        path.write_bytes(content)
