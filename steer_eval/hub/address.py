"""Names of repos on the Hub.

Invariant: a text either names exactly one repo, at one revision or at none, or it names none. Nothing here asks the
Hub or looks at the disk, so what a text means never depends on what exists.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from steer_eval.errors import SteerEvalError, first_line
from steer_eval.hub.endpoint import check_endpoint

Kind = Literal["model", "dataset"]
FORMS = "NAMESPACE/NAME[@REVISION], hf://[datasets/]NAMESPACE/NAME[@REVISION] or the repo's URL"
"""How repos of the Hub are named, for messages."""
_PLAIN = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_KINDS: dict[str, Kind] = {"model": "model", "dataset": "dataset"}


@dataclass(frozen=True)
class HubAddress:
    """A repo of the Hub.

    Args:
        id: Its namespace and name.
        kind: What it is; None where the text leaves that open, and the place where it stands decides.
        revision: Branch, tag or commit; None for the default branch.
        path: A path inside the repo; empty for the repo itself.
    """

    id: str
    kind: Kind | None = None
    revision: str | None = None
    path: str = ""

    def __str__(self) -> str:
        """The address in the form that people give; what it is has to be said beside it."""
        return self.id if self.revision is None else f"{self.id}@{self.revision}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never moves."""
        return self.revision is not None and is_commit(self.revision)

    @property
    def uri(self) -> str:
        """The address as `hf://`, which no folder can be mistaken for."""
        kind = "datasets/" if self.kind == "dataset" else ""
        # A slash would begin a path.
        revision = "" if self.revision is None else f"@{self.revision.replace('/', '%2F')}"
        return f"hf://{kind}{self.id}{revision}{f'/{self.path}' if self.path else ''}"


def is_commit(revision: str) -> bool:
    """Whether a revision is the full id of a commit."""
    return _COMMIT.fullmatch(revision) is not None


def parse_address(text: str) -> HubAddress | None:
    """The repo that a text names.

    Args:
        text: `namespace/name[@revision]`, `hf://[datasets/|models/]namespace/name[@revision][/path]`, or a URL of the
            Hub that `HF_ENDPOINT` names or of the public one, which may go on with `/tree/<revision>[/<path>]`.

    Returns:
        The address; None if the text is of none of these forms.

    Raises:
        SteerEvalError: The text is `hf://` or a URL of the Hub, and names no model or dataset repo; or `HF_ENDPOINT` is
            no address.
    """
    match = _PLAIN.fullmatch(text)
    if match is not None:
        address = HubAddress(match["id"], None, match["revision"])
    elif text.startswith("hf://"):
        address = _parsed(text)
        if not text.startswith(("hf://models/", "hf://datasets/")):
            address = replace(address, kind=None)
    elif text.startswith(("http://", "https://")) and _is_of_hub(text):
        address = _parsed(text)
    else:
        return None
    # Git has no such names, and the cache keeps revisions as paths.
    if address.revision is not None and (".." in address.revision or address.revision.startswith("/")):
        raise SteerEvalError(f"{text}: {address.revision} is no revision", "give a branch, a tag or a commit")
    return address


def _parsed(text: str) -> HubAddress:
    check_endpoint()
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        uri = parse_hf_uri(text, endpoint=os.environ.get("HF_ENDPOINT") or None)
    except HfUriError as error:
        raise SteerEvalError(f"{text} names no repo of the Hub: {first_line(error)}", f"give {FORMS}") from None
    kind = _KINDS.get(uri.type)
    if kind is None:
        raise SteerEvalError(f"{text} names a {uri.type}; studies are in model and dataset repos", f"give {FORMS}")
    return HubAddress(uri.id, kind, uri.revision, uri.path_in_repo.strip("/"))


def _is_of_hub(url: str) -> bool:
    """Whether a URL is of the public Hub, or of the one that `HF_ENDPOINT` names, port included."""
    check_endpoint()
    from huggingface_hub import constants

    try:
        asked, endpoint = urlsplit(url), urlsplit(constants.ENDPOINT)
        if asked.hostname == endpoint.hostname:
            return asked.port == endpoint.port
        return asked.hostname in constants.HF_URL_HOSTS
    except ValueError:
        return False
