"""The order in which a study is published: the dataset repo, the model repo that pins it, the check, tags, collection.

Invariant: at every moment each repo is one whole version, and the model repo pins a commit of the dataset repo that is
there. Stopped anywhere, running it again finishes: what is there already is not pushed a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from steer_eval.findings import Finding, worst
from steer_eval.hub.address import HubAddress
from steer_eval.publish import push as pushing
from steer_eval.publish import unchecked
from steer_eval.publish.plan import RepoPlan, bytes_said, compared, plan_repo
from steer_eval.publish.push import Pushed
from steer_eval.publish.remote import look
from steer_eval.publish.stage import Staged, StagedRepo
from steer_eval.publish.verify import Verification, verify

UNKNOWN_COMMIT = "0" * 40
"""What the model repo pins in a plan, where the commit of its dataset repo is not made yet."""


@dataclass(frozen=True)
class Wishes:
    """What the user asks for beside the folders.

    Args:
        message: First line of the commits.
        create_pr: Whether to make pull requests.
        private: Whether new repos are private.
        tag: Tag for both commits.
        collection: Slug or title of a collection for both repos.
        delete: Patterns of files on the Hub to delete though they were not published by this tool.
    """

    message: str
    create_pr: bool = False
    private: bool = False
    tag: str | None = None
    collection: str | None = None
    delete: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """What publishing changes in both repos."""

    data: RepoPlan
    model: RepoPlan

    @property
    def repos(self) -> tuple[RepoPlan, RepoPlan]:
        """Both, in the order in which they are pushed."""
        return self.data, self.model

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the Hub has that speaks against it."""
        return (*self.data.findings, *self.model.findings)

    @property
    def changes_files(self) -> bool:
        """Whether there is anything to commit."""
        return any(repo.changes_files for repo in self.repos)

    @property
    def is_to_be_checked(self) -> bool:
        """Whether what is on the Hub afterwards is downloaded and checked."""
        tagged = any(repo.needs_tag for repo in self.repos)
        return self.changes_files or tagged or unchecked.is_unchecked(self.model.repo, self.data.repo)


@dataclass(frozen=True)
class Publication:
    """What was published.

    Args:
        plan: The plan as it was carried out.
        data: The commit of the dataset repo.
        model: The commit of the model repo.
        verification: What a check of the pushed files found; None where nothing was pushed.
        collection: Slug of the collection that has both.
    """

    plan: Plan
    data: Pushed
    model: Pushed
    verification: Verification | None = None
    collection: str | None = None


def make_plan(staged: Staged, wishes: Wishes) -> Plan:
    """Compare staged repos with the Hub; the staged model repo pins what it will, as far as that is known.

    Args:
        staged: What will be published.
        wishes: What the user asks for.

    Raises:
        HubError: The Hub can't be asked.
    """

    def plan(repo: StagedRepo) -> RepoPlan:
        remote = look(repo.id, repo.kind)
        return plan_repo(repo, remote, delete=wishes.delete, private=wishes.private, tag=wishes.tag)

    data = plan(staged.data)
    staged.pin(UNKNOWN_COMMIT if data.changes_files else str(data.remote.head))
    return Plan(data, plan(staged.model))


def carry_out(plan: Plan, staged: Staged, wishes: Wishes, *, on_step: Callable[[str], None]) -> Publication:
    """Publish.

    Args:
        plan: The plan.
        staged: The files that it was made for.
        wishes: What the user asks for.
        on_step: Called with what is done next.

    Raises:
        OvertakenError: Somebody pushed since the plan was made.
        HubError: The Hub refuses it, or can't be reached.
    """
    pair = plan.model.repo, plan.data.repo
    if plan.changes_files:
        pushing.check_heads(*plan.repos)
        unchecked.begin(*pair)
    data = _pushed(plan.data, staged.data, wishes, "", on_step)
    staged.pin(data.commit)
    changes = tuple(compared(staged.model, plan.model.remote, wishes.delete))
    plan = replace(plan, model=replace(plan.model, changes=changes))
    description = f"Data: {plan.data.repo} at {data.commit}"
    if data.request:
        description += f", of the pull request {data.request}: merge that one first."
    model = _pushed(plan.model, staged.model, wishes, description, on_step)
    published = Publication(plan, data, model)
    if plan.is_to_be_checked:
        on_step("download what was pushed, and check it")
        verification = verify(
            HubAddress(plan.model.repo, "model", model.commit), HubAddress(plan.data.repo, "dataset", data.commit)
        )
        published = replace(published, verification=verification)
        if worst(verification.findings) == "error":
            return published
        unchecked.checked(*pair)
    for repo, pushed in zip(plan.repos, (data, model), strict=True):
        if repo.needs_tag:
            on_step(f"tag {repo.repo} {repo.tag}")
            pushing.tag(repo, pushed.commit)
    if wishes.collection:
        on_step(f"add both repos to the collection {wishes.collection}")
        namespace = plan.model.repo.partition("/")[0]
        slug = pushing.collect(wishes.collection, *plan.repos, namespace=namespace, private=wishes.private)
        published = replace(published, collection=slug)
    return published


def _pushed(
    plan: RepoPlan, staged: StagedRepo, wishes: Wishes, description: str, on_step: Callable[[str], None]
) -> Pushed:
    """The commit of one repo: a new one, the one of an earlier run, or the head where nothing changes."""
    if not plan.changes_files:
        return Pushed(str(plan.remote.head))
    if wishes.create_pr:
        earlier = pushing.open_request(plan, staged, message=wishes.message)
        if earlier is not None:
            on_step(f"{plan.repo}: the pull request {earlier.request} has all of it already")
            return earlier
    files = [change for change in plan.changes if change.action in ("added", "changed", "deleted")]
    size = sum(change.size or 0 for change in files)
    count = f"{len(files)} file{'s' * (len(files) != 1)}"
    on_step(f"push {count}, {bytes_said(size)}, to the {plan.kind} repo {plan.repo}")
    return pushing.push(plan, staged, message=wishes.message, description=description, create_pr=wishes.create_pr)
