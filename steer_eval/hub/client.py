"""The client of the Hub, which says who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steer_eval import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LIBRARY = "steer-eval"


def api() -> HfApi:
    """A client for the Hub that `HF_ENDPOINT` names, with the user's token."""
    from huggingface_hub import HfApi

    return HfApi(library_name=LIBRARY, library_version=__version__)
