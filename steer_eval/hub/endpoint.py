"""Which Hub is asked.

Invariant: huggingface_hub is only imported once `HF_ENDPOINT` is known to be an address, because it looks at it then.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from steer_eval.errors import SteerEvalError


def check_endpoint() -> None:
    """Check that `HF_ENDPOINT`, if it is set, is the address of a web site.

    Raises:
        SteerEvalError: It is none.
    """
    text = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        fix = "unset it for the public Hub, or give it as https://HOST"
        raise SteerEvalError(f"HF_ENDPOINT is no address of a Hub: {text!r}", fix)


def endpoint() -> str:
    """The Hub that is asked: `HF_ENDPOINT`, or the public one."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def web_page(repo_id: str, kind: str) -> str:
    """Where people see a repo."""
    return f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
