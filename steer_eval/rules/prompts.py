"""Rules on the evaluation prompts.

Invariant: no prompt on which a vector is evaluated is a scenario that it was made from, as the dataset card says.
"""

from __future__ import annotations

from steer_eval.contrast import folded
from steer_eval.findings import Finding
from steer_eval.results import Results
from steer_eval.study import Study


def prompt_leaks(study: Study, results: Results, prefix: str) -> list[Finding]:
    """Evaluation prompts that are, up to case and white space, scenarios of the contrast pairs.

    Args:
        study: The study; it names the files.
        results: Its pairs and prompts, where they could be read.
        prefix: What to put before file names.
    """
    scenarios = {folded(pair.scenario): line for line, pair in enumerate(results.pairs or (), start=1)}
    return [
        Finding(
            "prompt-leak",
            "error",
            prefix + study.sweep.prompts,
            f"line {line}",
            f"the prompt is the scenario in line {scenarios[folded(prompt)]} of {study.extraction.pairs}",
            None,
            prompt,
            "evaluate on prompts that the vectors were not made from",
        )
        for line, prompt in enumerate(results.prompts or (), start=1)
        if folded(prompt) in scenarios
    ]
