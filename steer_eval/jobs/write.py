"""Writing a job: every input is pinned here.

Invariant: the two repos and the base models of a job are commits, its packages are versions. What a job could not have
(a folder of this machine) is refused before anything is submitted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.errors import SteerEvalError
from steer_eval.hub.address import HubAddress
from steer_eval.hub.client import api
from steer_eval.hub.errors import hub_errors
from steer_eval.hub.snapshot import resolve
from steer_eval.jobs.errors import job_errors
from steer_eval.jobs.job import FLAVOR, Job
from steer_eval.jobs.requirements import is_requirement, own_package, pinned
from steer_eval.model_reference import HubSource, LocalSource, ModelReference, PypiSource
from steer_eval.repository import Repositories, Repository, StudyRepositories, open_target, shipped_studies
from steer_eval.sae.text import WIKIPEDIA, OfflineText
from steer_eval.study import Study

SLACK = 30
"""Minutes that a job has beside its models' time: for packages, weights and the report."""


@dataclass(frozen=True)
class Wish:
    """What a user asks of a job.

    Args:
        level: How far the reproduction goes.
        cells: Which cells are run again.
        max_minutes: Time for the models.
        study: Name of a study that ships with the package.
        flavor: Hardware; the smallest by default.
        results: Dataset repo for the pull request; by default `<user>/<study>-reproductions`.
        namespace: Whose job it is; by default the user's.
        package: steer-eval as the job installs it; by default as it is installed here.
    """

    level: str
    cells: str
    max_minutes: float
    study: str | None = None
    flavor: str | None = None
    results: str | None = None
    namespace: str | None = None
    package: str | None = None


def write_job(target: str, data: str | None, wish: Wish) -> Job:
    """Write the job of a reproduction.

    Args:
        target: The model repo on the Hub.
        data: Its dataset repo; by default the one that it pins or names.
        wish: What is asked of the job.

    Raises:
        SteerEvalError: Something of the study is not on the Hub, or a name is missing and nobody is logged in.
    """
    if wish.study is not None and wish.study not in shipped_studies():
        known = ", ".join(shipped_studies())
        raise SteerEvalError(f"a job has no file {wish.study}", f"name a study that ships with the package: {known}")
    opened = open_target(target, data, wish.study)
    model = _pinned(opened.model)
    paired = None if opened.data is None else _pinned(opened.data)
    name = opened.study.name if opened.study is not None else model.id.rsplit("/", 1)[-1]
    references = _references(opened) if wish.level == "rerun" else []
    packages = [
        package for each in references if isinstance(each.source, PypiSource) for package in each.source.requirements
    ]
    user = None if wish.results and wish.namespace else _user()
    results = wish.results or f"{user}/{_plain(name)}-reproductions"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", results, re.ASCII):
        raise SteerEvalError(f"{results!r} is no name of a dataset repo", "give --results NAMESPACE/NAME")
    return Job(
        namespace=wish.namespace or str(user),
        flavor=wish.flavor or FLAVOR,
        timeout=60 * (int(wish.max_minutes) + SLACK),
        requirements=pinned(_package(wish.package), _extras(opened.study, packages)),
        settings={
            "study": f"{model.id}@{model.revision}",
            "name": _plain(name),
            "arguments": list(_arguments(model, paired, wish)),
            "weights": [_weights(each, each.source) for each in references if isinstance(each.source, HubSource)],
            "packages": packages,
            "results": {"repo": results, "private": any(_is_private(each) for each in (model, paired) if each)},
        },
    )


def _extras(study: Study | None, packages: Sequence[str]) -> frozenset[str]:
    """Optional parts that a job needs: to read weights in GGUF, and a text that comes with another package."""
    texts = [*(plan.text for plan in study.saes), *(plan.text for plan in study.transfers)] if study else []
    sample = any(isinstance(text, OfflineText) and text.name == WIKIPEDIA for text in texts)
    return frozenset({"gguf"} if packages else ()) | frozenset({"sae"} if sample else ())


def _pinned(repo: Repository) -> HubAddress:
    if repo.address is None:
        raise SteerEvalError(
            f"{repo.name} is a folder of this machine, which a job can't read",
            "publish it first (`steer-eval publish`), and give the repo as NAMESPACE/NAME",
        )
    return repo.address


def _references(opened: Repositories | StudyRepositories) -> Sequence[ModelReference]:
    """The models that a re-run needs."""
    references = list(opened.study.models.values()) if opened.study is not None else []
    for each in references:
        if isinstance(each.source, LocalSource):
            raise SteerEvalError(
                f"model {each.name}: its weights are the folder {each.source.path}, which a job can't read",
                f"name a Hub repo in models.{each.name}.source, or give --level recompute",
            )
    return references


def _weights(reference: ModelReference, source: HubSource) -> dict[str, str]:
    commit = resolve(HubAddress(source.id, "model", source.revision), "model").revision
    return {"model": reference.name, "id": source.id, "revision": source.revision, "commit": str(commit)}


def _arguments(model: HubAddress, data: HubAddress | None, wish: Wish) -> Iterator[str]:
    """The command line of the reproduction."""
    yield from ("reproduce", f"{model.id}@{model.revision}")
    if data is not None:
        yield from ("--data", f"{data.id}@{data.revision}")
    if wish.study is not None:
        yield from ("--study", wish.study)
    yield from ("--level", wish.level)
    if wish.level == "rerun":
        yield from ("--cells", wish.cells, "--max-minutes", f"{wish.max_minutes:g}")


def _package(named: str | None) -> str:
    package = named or own_package()
    if package is None:
        raise SteerEvalError(
            "steer-eval is installed here from a folder, which a job can't read",
            "say with --package what the job installs, for example steer-eval==VERSION or a git address",
        )
    if not is_requirement(package):
        raise SteerEvalError(f"{package!r} is no requirement on steer-eval", "give it like steer-eval==VERSION")
    return package


def _user() -> str:
    from huggingface_hub import get_token

    with job_errors("the Hub does not say who you are"):
        if get_token() is None:
            raise SteerEvalError(
                "nobody is logged in, so that there is no namespace for the job and its results",
                "run `hf auth login`; or, only to print the job, give --namespace NAME and --results NAMESPACE/NAME",
            )
        return str(api().whoami()["name"])


def _is_private(address: HubAddress) -> bool:
    """Whether the results must not be public either."""
    with hub_errors(address, address.kind or "model"):
        info: Any = api().repo_info(address.id, repo_type=address.kind, revision=address.revision)
    return bool(info.private)


def _plain(name: str) -> str:
    """A name that every part of the Hub takes."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", Path(name).name).strip("-") or "study"
