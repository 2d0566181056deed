"""What a study published, with everything that claims are held to.

Invariant: whoever judges a study's claims takes its results from here, so that a report, a comparison and a
reproduction can't judge the same claim by different evidence.
"""

from __future__ import annotations

from dataclasses import replace

from steer_eval.claims.conflicts import Conflicts
from steer_eval.claims.facts import facts_of
from steer_eval.claims.names import model_names
from steer_eval.repository import StudyRepositories
from steer_eval.results import Results
from steer_eval.results_files import load_results
from steer_eval.validate import Validation


def published_results(target: StudyRepositories, validation: Validation) -> Results:
    """The published results of a study, with the facts of its files and what speaks against each.

    Args:
        target: The study and its repos.
        validation: What a check of both repos found.
    """
    results = load_results(target.study, model_repo=target.model.folder, data_repo=target.data.folder)
    facts = facts_of(validation.inventory, model_names(validation.inventory))
    return replace(results, facts=facts.marked(Conflicts.of(validation.findings).against))
