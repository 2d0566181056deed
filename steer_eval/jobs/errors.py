"""What can go wrong between a job and the Hub, said in terms of the job.

Invariant: an answer of the Hub is passed on in its own words; nothing that it is sent is part of a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from steer_eval.errors import SteerEvalError, first_line


@contextmanager
def job_errors(what: str) -> Iterator[None]:
    """Turn errors of the Hub's client into ones that a user can act on.

    Args:
        what: What failed, as the beginning of the message.

    Raises:
        SteerEvalError: The Hub refused something, or can't be reached.
    """
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, OIDCError

    try:
        yield
    except HfHubHTTPError as error:
        fix = "look at `hf auth whoami`, and at what your account may run: `hf jobs hardware`"
        raise SteerEvalError(f"{what}: {error.server_message or first_line(error)}", fix) from error
    except OIDCError as error:
        fix = "a job needs a token of a user: unset HF_OIDC_RESOURCE"
        raise SteerEvalError(f"{what}: {first_line(error)}", fix) from error
    except (HTTPError, OfflineModeIsEnabled) as error:
        raise SteerEvalError(
            f"{what}: {first_line(error)}", "check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        ) from error
