"""What contradicts itself, and which numbers that touches.

Invariant: a broken identity touches the numbers that take part in it and no others: a wrong margin says nothing against
the coherence beside it. A row that stands twice is touched as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steer_eval.claims.fact import Fact
from steer_eval.findings import Finding
from steer_eval.formats.features import CHANGES
from steer_eval.sae.results import QUALITY_KEY

_ALL = frozenset({"*"})
_WHOLE = "*"
"""In place of a row: all of a file."""
_RATIO = frozenset({"perplexity", "base_perplexity", "perplexity_ratio"})
_FEATURE = frozenset({"feature_delta", "feature_base_mean", "feature_steered_mean", "feature_ratio"})
_OF_DELTA = frozenset({"feature_rank", "feature_rank_by_delta", "feature_rank_by_ratio", "feature_listed"})
_FIRING = {
    "steered_mean": frozenset({"feature_steered_mean", "feature_steered_frequency", "feature_delta", "feature_ratio"}),
    "base_mean": frozenset({"feature_base_mean", "feature_base_frequency", "feature_delta", "feature_ratio"}),
}

_OF_STATISTICS = {
    "effect": frozenset({"feature_effect"}),
    "steered_token_freq": frozenset({"feature_steered_token_frequency"}),
    "base_token_freq": frozenset({"feature_base_token_frequency"}),
    **{
        f"{change}_interval": frozenset({f"feature_{change}{end}" for end in ("", "_low", "_high", "_q")})
        for change in CHANGES
    },
}
_OF_SAE = {"predicted": frozenset({"feature_predicted"}), "decoder_norm": frozenset({"feature_effect"})}
_TOGETHER = {
    "excess_cross_entropy": (
        "cross_entropy", "cross_entropy_sae", "excess_cross_entropy", "cross_entropy_mean_ablation"
    )
}  # fmt: skip
"""Keys of an SAE's quality that a wrong one of them touches."""
_PARTS_OF_TESTS = ("value", "null_95", "p", "chance")

_TOUCHED: Mapping[str, Mapping[str, frozenset[str]]] = {
    "sweep-arithmetic": {"collapsed": frozenset({"collapsed"}), "": _RATIO | {"collapsed"}},
    "sweep-base": {"": frozenset({"base_perplexity"})},
    "sweep-duplicate": {"": _ALL},
    "judge-margin": {"": frozenset({"margin", "mature_anger", "juvenile_rage"})},
    "judge-duplicate": {"": _ALL},
    "judge-ratio": {"": frozenset({"perplexity_ratio"})},
    "feature-arithmetic": {**_FIRING, "": _FEATURE | _OF_DELTA},
    "feature-duplicate": {"": _ALL},
    "feature-statistics": {**_OF_STATISTICS, "": _ALL},
    "feature-sae": {**_OF_SAE, "": frozenset()},
    "sae-provenance": {"": _ALL},
    "sae-quality": {"": _ALL},
    "transfer-diagnostics": {"": _ALL},
    "vector-norm": {"": frozenset({"vector_norm"})},
    "transfer-cosine": {"": frozenset({"cosine"})},
    "evaluation-arithmetic": {"collapsed": frozenset({"collapsed"}), "": _RATIO | {"collapsed"}},
    "evaluation-base": {"": _RATIO},
}
"""Rules after whose findings a number can support no claim: by the field that they name, or `""` for any other, the
measures that are touched."""


@dataclass(frozen=True)
class Conflicts:
    """What some findings say against rows of the data.

    Args:
        found: Measures touched and the message, by file and place as facts name them.
    """

    found: Mapping[tuple[str, str], tuple[tuple[frozenset[str], str], ...]]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Conflicts:
        """The conflicts that a check of the data found."""
        found: dict[tuple[str, str], tuple[tuple[frozenset[str], str], ...]] = {}
        for finding in findings:
            touched = _TOUCHED.get(finding.rule)
            if touched is None:
                continue
            for row, field in _places(finding):
                key = (finding.file, row)
                found[key] = (*found.get(key, ()), (touched.get(field, touched[""]), finding.message))
        return cls(found)

    def against(self, fact: Fact) -> str:
        """What speaks against a fact; empty if nothing does."""
        said = (*self.found.get((fact.file, fact.where), ()), *self.found.get((fact.file, _WHOLE), ()))
        return "; ".join(message for measures, message in said if measures & {"*", fact.measure})


def _places(finding: Finding) -> list[tuple[str, str]]:
    """The rows that a finding touches, as facts name them, each with the field in it."""
    if finding.rule in {"sae-provenance", "sae-quality"}:
        prefix = f"{QUALITY_KEY}." if finding.where.startswith(f"{QUALITY_KEY}.") else ""
        key = finding.where.removeprefix(prefix)
        return [(f"{prefix}{each}", "") for each in _TOGETHER.get(key, (key,))]
    if finding.rule == "transfer-diagnostics":
        # What they were made on is behind every number of the file.
        if not finding.where.startswith("protocols."):
            return [(_WHOLE, "")]
        test, _, part = finding.where.rpartition(".")
        return [(test if part in _PARTS_OF_TESTS else finding.where, "")]
    return [_place(finding)]


def _place(finding: Finding) -> tuple[str, str]:
    """The row of a finding as facts name it, and the field in it."""
    if finding.rule == "vector-norm":
        return "vector", "norm"
    row, _, field = finding.where.partition(": ")
    if row.startswith("top_features["):
        row, _, field = row.partition("].")
        row = row if row.endswith("]") else f"{row}]"
    return row, field
