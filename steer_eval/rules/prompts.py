"""Rules on the evaluation prompts.

Invariant: no prompt on which a vector is evaluated is a scenario that it was made from, as the dataset card says.
"""

from __future__ import annotations

from steer_eval.contrast import folded
from steer_eval.findings import Finding
from steer_eval.inventory import Inventory


def prompt_leaks(inventory: Inventory) -> list[Finding]:
    """Evaluation prompts that are, up to case and white space, scenarios of the contrast pairs.

    Args:
        inventory: What the repos hold.
    """
    scenarios = {
        folded(row.value["scenario"]): (row.line, table.path)
        for table in inventory.of("contrast_pairs")
        for row in table.value
    }
    findings = []
    for table in inventory.of("eval_prompts"):
        for row in table.value:
            prompt = row.value["scenario"]
            if folded(prompt) in scenarios:
                line, path = scenarios[folded(prompt)]
                message = f"the prompt is the scenario in line {line} of {path}"
                fix = "evaluate on prompts that the vectors were not made from"
                findings.append(
                    Finding("prompt-leak", "error", table.file, f"line {row.line}", message, None, prompt, fix)
                )
    return findings
