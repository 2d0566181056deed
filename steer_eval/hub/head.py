"""The first bytes of files on the Hub.

Invariant: only the bytes that are asked for are read, also from a server that sends more. What was read is kept under
the checksum of the whole file, which names its content for good, so that it is asked for once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from steer_eval.formats.atomic import write_bytes
from steer_eval.hub.address import HubAddress
from steer_eval.hub.errors import HubError, hub_errors


@dataclass(frozen=True)
class Head:
    """The beginning of one file.

    Args:
        address: The file: a repo at a commit, and a path.
        digest: Checksum of the whole file, as the Hub lists it.
        cache: Folder in which beginnings are kept.
    """

    address: HubAddress
    digest: str
    cache: Path

    def __call__(self, size: int) -> bytes:
        """The first bytes of the file.

        Args:
            size: How many; fewer come where the file has fewer.

        Raises:
            SteerEvalError: The Hub does not give them.
        """
        kept = self.cache / self.digest[:2] / self.digest
        known = kept.read_bytes() if kept.is_file() else b""
        if len(known) < size:
            known += self._fetch(len(known), size)
            # Where it can't be kept it is asked again; that is all.
            with suppress(OSError):
                write_bytes(kept, known)
        return known[:size]

    def _fetch(self, start: int, stop: int) -> bytes:
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        address = self.address
        kind = address.kind or "model"
        url = hf_hub_url(address.id, address.path, repo_type=kind, revision=address.revision)
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        content = bytearray()
        with hub_errors(address, kind), get_session().stream("GET", url, headers=headers) as response:
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            # A server that knows no ranges begins at the beginning.
            skip = 0 if response.status_code == 206 else start
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) >= skip + stop - start:
                    break
        if not content:
            raise HubError(f"the Hub sends nothing of {address.uri}", "try again later")
        return bytes(content[skip : skip + stop - start])
