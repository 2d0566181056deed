"""Writing to the Hub: the only module that does.

Invariant: a repo changes by one commit that rests on the head that was planned against, or not at all: whoever pushed
in between makes the Hub refuse it. Large files go ahead of the commit that names them, and nobody sees them before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from steer_eval.hub.client import api
from steer_eval.hub.endpoint import web_page
from steer_eval.hub.errors import LOGIN, HubError, hub_errors
from steer_eval.publish.belongs import HUBS_OWN
from steer_eval.publish.plan import Change, RepoPlan, compared
from steer_eval.publish.remote import files_at, is_trusted_publishing, look, rights_for
from steer_eval.publish.stage import StagedRepo

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

_NEW = {*HUBS_OWN, "README.md"}
"""What a repo can have that was created a moment ago."""
_STALE = 412
_TAKEN = 409


class OvertakenError(HubError):
    """Somebody else pushed since the plan was made."""


@dataclass(frozen=True)
class Pushed:
    """A commit on the Hub.

    Args:
        commit: Its id.
        request: Address of the pull request that it stands in; None on the main branch.
    """

    commit: str
    request: str | None = None


def check_rights(plan: RepoPlan, *, create_pr: bool) -> None:
    """Check that a plan may be carried out, before anything is written.

    Args:
        plan: The plan.
        create_pr: Whether pull requests are made, which needs no right to write.

    Raises:
        HubError: Nobody is logged in, or the token may not write there.
    """
    from huggingface_hub import get_token

    hub = api()
    with rights_for(plan.repo, plan.kind), hub_errors(plan.repo, plan.kind):
        if get_token() is None:
            fix = LOGIN.replace("may read it", f"may write to {plan.repo}")
            raise HubError("nobody is logged in, and publishing needs a token", fix)
        if create_pr and plan.is_new:
            message = f"there is no {plan.kind} repo {plan.repo} to make a pull request to"
            raise HubError(message, "publish without --create-pr, which creates it")
        if plan.is_new and not is_trusted_publishing():
            _check_namespace(plan)
        elif not plan.is_new and not create_pr:
            try:
                hub.auth_check(plan.repo, repo_type=plan.kind, write=True)
            except Exception as error:
                _refuse_writing(plan, error)


def check_heads(*plans: RepoPlan) -> None:
    """Check that nobody pushed since the plans were made, before anything is written.

    Raises:
        OvertakenError: Somebody did.
    """
    for plan in plans:
        if look(plan.repo, plan.kind).head != plan.remote.head:
            raise _overtaken(plan)


def push(plan: RepoPlan, staged: StagedRepo, *, message: str, description: str, create_pr: bool) -> Pushed:
    """Carry out the plan of one repo, in one commit.

    Args:
        plan: The plan.
        staged: The files.
        message: First line of the commit.
        description: The lines below it.
        create_pr: Commit to a pull request instead of the main branch.

    Raises:
        OvertakenError: Somebody pushed since the plan was made.
        HubError: The Hub refuses it, or can't be reached.
    """
    repo, kind, hub = plan.repo, plan.kind, api()
    with rights_for(repo, kind), _overtaking(plan):
        parent = _created(plan) if plan.is_new else str(plan.remote.head)
        additions = list(_additions(plan.changes, staged))
        operations: list[CommitOperationAdd | CommitOperationDelete] = [*additions, *_deletions(plan.changes)]
        hub.preupload_lfs_files(repo, additions, repo_type=kind, create_pr=create_pr, free_memory=False)
        info = hub.create_commit(
            repo,
            operations,
            commit_message=message,
            commit_description=description,
            repo_type=kind,
            create_pr=create_pr,
            parent_commit=parent,
        )
    # The client leaves out files that the Hub has by now, and makes no commit where nothing is left: then somebody else
    # pushed the same files since.
    if additions and not any(getattr(addition, "_is_committed", True) for addition in additions):
        raise _overtaken(plan)
    return Pushed(info.oid, info.pr_url if create_pr else None)


def open_request(plan: RepoPlan, staged: StagedRepo, *, message: str) -> Pushed | None:
    """An open pull request with just these files, of an earlier run that did not come to its end.

    Args:
        plan: The plan.
        staged: The files.
        message: Title of the pull request.
    """
    hub = api()
    with rights_for(plan.repo, plan.kind), hub_errors(plan.repo, plan.kind):
        requests = hub.get_repo_discussions(
            plan.repo, repo_type=plan.kind, discussion_type="pull_request", discussion_status="open"
        )
        for request in requests:
            if request.title != message:
                continue
            head = hub.repo_info(plan.repo, repo_type=plan.kind, revision=request.git_reference).sha
            if head is not None and _has(plan, staged, head):
                return Pushed(head, request.url)
    return None


def tag(plan: RepoPlan, commit: str) -> None:
    """Give a commit the tag of its plan.

    Raises:
        HubError: The tag is there by now, or the Hub refuses it.
    """
    with rights_for(plan.repo, plan.kind), _overtaking(plan):
        api().create_tag(plan.repo, tag=str(plan.tag), revision=commit, repo_type=plan.kind)


def collect(collection: str, *plans: RepoPlan, namespace: str, private: bool) -> str:
    """Put repos into a collection.

    Args:
        collection: Slug of one that is there, or the title of one that is created if need be.
        plans: The repos.
        namespace: Whose collection a new one is.
        private: Whether a new one is private.

    Returns:
        Its slug.

    Raises:
        HubError: The Hub refuses it.
    """
    hub = api()
    with hub_errors(collection, "model"):
        if _is_slug(collection):
            slug = hub.get_collection(collection).slug
        else:
            slug = hub.create_collection(collection, namespace=namespace, private=private, exists_ok=True).slug
        for plan in plans:
            hub.add_collection_item(slug, plan.repo, plan.kind, exists_ok=True)
    return slug


def _is_slug(collection: str) -> bool:
    namespace, _, name = collection.partition("/")
    ending = name.rpartition("-")[2]
    return bool(namespace) and len(ending) == 24 and all(letter in "0123456789abcdef" for letter in ending)


def _check_namespace(plan: RepoPlan) -> None:
    """Check that a repo can be created where it is to be."""
    user = api().whoami()
    own = {str(user["name"]), *(str(each["name"]) for each in user.get("orgs", ()))}
    namespace = plan.repo.partition("/")[0]
    if namespace not in own:
        message = f"there is no {plan.kind} repo {plan.repo}, and this token can't create one: it is of {user['name']}"
        raise HubError(message, f"publish to one of {', '.join(sorted(own))}, or ask the owner of {namespace}")
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise HubError(
            f"this token can only read, and {plan.repo} is to be created", "give one with the right to write"
        )


def _refuse_writing(plan: RepoPlan, error: Exception) -> None:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    denied = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404)
    if denied or isinstance(error, RepositoryNotFoundError | GatedRepoError):
        message = f"this token may not write to the {plan.kind} repo {plan.repo}"
        fix = "give a token with the right to write there, or propose the change with --create-pr"
        raise HubError(message, fix) from error
    raise error


@contextmanager
def _overtaking(plan: RepoPlan) -> Iterator[None]:
    """Tell a refusal because of somebody else's push from all others."""
    from huggingface_hub.errors import HfHubHTTPError

    with hub_errors(plan.repo, plan.kind):
        try:
            yield
        except HfHubHTTPError as error:
            if error.response.status_code in (_STALE, _TAKEN):
                raise _overtaken(plan) from error
            raise


def _overtaken(plan: RepoPlan) -> OvertakenError:
    prefix = "hf://datasets/" if plan.kind == "dataset" else ""
    seen = f"{prefix}{plan.repo}@{plan.remote.head}" if plan.remote.head else None
    look_at = f"see what changed with `steer-eval diff {seen} {prefix}{plan.repo}`" if seen else "look at it"
    return OvertakenError(
        f"somebody pushed to the {plan.kind} repo {plan.repo} since this plan was made; nothing was overwritten",
        f"{look_at} ({web_page(plan.repo, plan.kind)}), and run it again, which plans anew",
    )


def _created(plan: RepoPlan) -> str:
    """Create a repo, which must not be there; gives its first commit."""
    hub = api()
    hub.create_repo(plan.repo, repo_type=plan.kind, private=plan.private)
    head = str(hub.repo_info(plan.repo, repo_type=plan.kind).sha)
    # Between the two requests somebody else can have pushed what this plan does not know of.
    if files_at(plan.repo, plan.kind, head).keys() - _NEW:
        raise _overtaken(plan)
    return head


def _additions(changes: tuple[Change, ...], staged: StagedRepo) -> Iterator[CommitOperationAdd]:
    from huggingface_hub import CommitOperationAdd

    for change in changes:
        if change.action in ("added", "changed"):
            yield CommitOperationAdd(change.path, str(staged.folder / change.path))


def _deletions(changes: tuple[Change, ...]) -> Iterator[CommitOperationDelete]:
    from huggingface_hub import CommitOperationDelete

    for change in changes:
        if change.action == "deleted":
            yield CommitOperationDelete(change.path, is_folder=False)


def _has(plan: RepoPlan, staged: StagedRepo, revision: str) -> bool:
    """Whether a revision has all files as the plan leaves them."""
    there = replace(plan.remote, head=revision, files=files_at(plan.repo, plan.kind, revision))
    return not any(change.action in ("added", "changed", "deleted") for change in compared(staged, there))
