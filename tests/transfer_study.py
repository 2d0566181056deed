"""A study on disk that carries directions between two models, as the tests of `steer-eval transfer` use it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tiny_study import SCENARIOS, invoke

from steer_eval.formats.strict_json import write_jsonl
from steer_eval.inventory import Root, take_inventory
from steer_eval.rules.transfer_diagnostics import diagnostics_findings, planned_diagnostics_findings
from steer_eval.rules.transfers import transfer_findings
from steer_eval.study import load_study

NAME = "tiny_L2_to_turned_L2"
PLANNED = {
    "source": {"model": "tiny", "layer": 2},
    "target": {"model": "turned", "layer": 2},
    "text": {"offline": "neutral-sentences"},
    "coefficient": 2,
    "words": 400,
    "draws": 19,
}
BACK = {**PLANNED, "source": {"model": "turned", "layer": 1}, "target": {"model": "tiny", "layer": 2}, "seed": 5}


@dataclass(frozen=True)
class Place:
    """The repos of a study that plans transfers."""

    model: Path
    data: Path

    def begin(self, study: dict[str, Any]) -> None:
        """Write the study and its contrast pairs, and extract its vectors."""
        (self.model / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        write_jsonl(
            self.data / "contrast_pairs.jsonl",
            [{"scenario": s, "angry": f"I am done. {s}", "calm": f"I see. {s} Fine."} for s in SCENARIOS],
        )
        assert invoke("extract", str(self.model)).exit_code == 0

    def plan(self, *transfers: dict[str, Any]) -> None:
        """Let the study plan these transfers, and no others."""
        file = self.model / "study.yaml"
        what = yaml.safe_load(file.read_text())
        # Copied, for what is shared would be written as an alias.
        planned = [deepcopy(each) for each in transfers]
        file.write_text(yaml.safe_dump({**what, "transfers": planned}, sort_keys=False))

    def findings(self) -> list[str]:
        """The rules that what transfers wrote breaks; all of it can be read."""
        inventory = take_inventory([Root(self.model, "m/", "model"), Root(self.data, "d/", "dataset")])
        assert not [artifact for artifact in inventory.artifacts if artifact.troubles]
        study = load_study(self.model / "study.yaml")
        findings = [
            *transfer_findings(inventory, {}),
            *diagnostics_findings(inventory),
            *planned_diagnostics_findings(study, inventory, "m/"),
        ]
        return [str(finding.rule) for finding in findings]
