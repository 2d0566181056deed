"""What can go wrong between here and the Hub, in words that say what to do.

Invariant: whatever huggingface_hub or the network below it raises inside `hub_errors` leaves as a `SteerEvalError`,
and each cause has its own message and its own fix. No message holds a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from steer_eval.errors import SteerEvalError, first_line
from steer_eval.hub.address import FORMS, HubAddress, Kind
from steer_eval.hub.endpoint import check_endpoint, endpoint, web_page

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

LOGIN = "run `hf auth login`, or set HF_TOKEN to a token that may read it"


class HubError(SteerEvalError):
    """Something that keeps a repo of the Hub from being read or written."""


class RepoNotFoundError(HubError):
    """The Hub has no such repo, or does not show it to this user."""


class WrongSizeError(HubError):
    """A file that came with another size than the Hub lists."""


@contextmanager
def hub_errors(target: HubAddress | str, kind: Kind) -> Iterator[None]:
    """Give everything that the Hub and the network raise its own message.

    Args:
        target: The repo, as messages name it.
        kind: What it is.

    Raises:
        HubError: Something went wrong on the way to the Hub.
    """
    # The library prints and raises what it likes where it can't make anything of its endpoint, already when imported.
    check_endpoint()
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        OIDCError,
        RevisionResolutionError,
    )

    name = target if isinstance(target, str) else str(target)
    what = f"the {kind} repo {name}"
    try:
        yield
    except SteerEvalError:
        raise
    except HFValidationError as error:
        raise HubError(f"{name} is no name that a repo can have: {first_line(error)}", f"give {FORMS}") from error
    except (RevisionResolutionError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise _not_here(what, error) from error
    except OIDCError as error:
        fix = "check HF_OIDC_RESOURCE and the workflow's `permissions: id-token: write`"
        raise HubError(f"no token for {what} by trusted publishing: {first_line(error)}", fix) from error
    except (HTTPError, InvalidURL) as error:
        raise _of_request(what, kind, error) from error
    except OSError as error:
        if "Consistency check failed" in str(error):
            message = f"a file of {what} came with another size than the Hub lists: {first_line(error)}"
            fix = "run it again; if it stays so, the repo's authors have to push it again"
            raise WrongSizeError(message, fix) from error
        fix = "look for room and rights in the cache, or set HF_HOME to another place"
        raise HubError(f"{what} can't be kept on this disk: {first_line(error)}", fix) from error
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        # What the client raises when an answer is not what a Hub sends.
        message = f"{endpoint()} does not answer as a Hub for {what}: {first_line(error)}"
        raise HubError(message, "check HF_ENDPOINT; unset it for the public Hub") from error


def _not_here(what: str, error: Exception) -> HubError:
    """A repo that is neither in the cache nor to be had."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, IncompleteSnapshotError, OfflineModeIsEnabled

    cause = error.__cause__ or error.__context__
    if constants.HF_HUB_OFFLINE or isinstance(error, OfflineModeIsEnabled) or isinstance(cause, OfflineModeIsEnabled):
        part = "only in part in the cache" if isinstance(error, IncompleteSnapshotError) else "not in the cache"
        fix = "run it once without HF_HUB_OFFLINE, which fills the cache"
        return HubError(f"{what} is {part}, and HF_HUB_OFFLINE forbids fetching it", fix)
    if isinstance(cause, HfHubHTTPError):
        return _of_answer(what, cause)
    return _no_network(what, cause or error)


def _of_request(what: str, kind: Kind, error: Exception) -> HubError:
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():
            return _gated(what, f"accept its terms at {web_page(error.repo_id or '', kind)}")
        case DisabledRepoError():
            return HubError(f"{what} was disabled by the Hub or its authors", "ask its authors")
        case RevisionNotFoundError():
            fix = "give a branch, a tag or a full commit id that the repo has, or leave it out for the default branch"
            return HubError(f"{what} has no such revision", fix)
        case RemoteEntryNotFoundError():
            return HubError(f"{what} has no file {_last_part(error)}", "look at the files of the repo")
        case RepositoryNotFoundError():
            return _not_shown(what, error)
        case HfHubHTTPError():
            return _of_answer(what, error)
    return _no_network(what, error)


def _gated(what: str, accept: str) -> HubError:
    """A repo whose files are for those who accepted its terms."""
    if not _has_token():
        return HubError(f"{what} is gated, and nobody is logged in", f"{accept}, then {LOGIN}")
    fix = f"{accept} with that account (`hf auth whoami`), and wait where its authors let people in one by one"
    return HubError(f"{what} is gated, and the account of this token is not let in", fix)


def _not_shown(what: str, error: Exception) -> HubError:
    """The Hub answers alike for a repo that is absent and for one that this user may not see."""
    if _is_bad_token(error):
        return _bad_token(what)
    if _has_token():
        message = f"there is no {what.removeprefix('the ')}, or it is private and this token may not read it"
        return RepoNotFoundError(message, "check the name, and `hf auth whoami`; its owner can let you in")
    message = f"there is no {what.removeprefix('the ')}, or it is private and nobody is logged in"
    return RepoNotFoundError(message, f"check the name; if it is private, {LOGIN}")


def _of_answer(what: str, error: HfHubHTTPError) -> HubError:
    """An answer of the Hub that is neither a repo nor one of its own kinds of refusal."""
    status = error.response.status_code
    said = error.server_message or first_line(error)
    if status == 401:
        return _bad_token(what)
    if status == 403:
        fix = "give a token whose rights cover it: a fine-grained one needs this repo in its list"
        return HubError(f"this token has no rights to {what}: {said}", fix)
    if status == 429:
        return HubError(f"the Hub takes no more requests for now: {said}", "wait a few minutes, or log in for more")
    if status >= 500:
        return HubError(f"{endpoint()} is out of order ({status}): {said}", "try again later")
    return HubError(f"{endpoint()} gives no {what.removeprefix('the ')} ({status}): {said}", "check HF_ENDPOINT")


def _bad_token(what: str) -> HubError:
    fix = "set HF_TOKEN to a valid token, or unset it and run `hf auth login`"
    return HubError(f"the Hub does not take this token for {what}: it is wrong, or was revoked", fix)


def _is_bad_token(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    said = (error.server_message or "") if isinstance(error, HfHubHTTPError) else ""
    return "invalid credentials" in said.lower() or "invalid token" in said.lower()


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _no_network(what: str, error: BaseException) -> HubError:
    fix = "check the network and HF_ENDPOINT; what was fetched before is read with HF_HUB_OFFLINE=1"
    return HubError(f"no answer from {endpoint()} for {what}: {first_line(error)}", fix)


def _last_part(error: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    return str(error.response.url).rpartition("/")[2] if isinstance(error, HfHubHTTPError) else ""
