"""Studies whose plan asks for what a command makes, in a folder that it can be written to.

Invariant: a study without such a plan, and a repo that can't be written to, are refused before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steer_eval.repository import StudyRepositories
    from steer_eval.study import Study


def open_planned(
    study: str, data: str | None, plans: Callable[[Study], Collection[object]], *, what: str, fix: str
) -> StudyRepositories:
    """Open a study that plans something.

    Args:
        study: The model repo, which will be written to.
        data: The dataset repo, if it is not the one that the study names.
        plans: What it plans of the kind.
        what: The kind, in words.
        fix: What to do where it plans none.

    Raises:
        SteerEvalError: The study can't be opened or written to, or plans nothing of the kind.
    """
    from steer_eval.errors import SteerEvalError
    from steer_eval.repository import open_study

    repositories = open_study(study, data)
    if not plans(repositories.study):
        raise SteerEvalError(f"{study} plans no {what}", fix)
    repositories.model.check_writable()
    return repositories
