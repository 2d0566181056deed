"""Rules that a cell or a feature can pass: comparisons of measures with numbers, joined by `and`.

Invariant: a rule is data; one that names an unknown measure, or has any other form, makes a claim not checkable.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from steer_eval.claims.fact import Fact
from steer_eval.claims.measures.measure import NotCheckable

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARISON = re.compile(r"(?P<measure>\w+)\s*(?P<sign><=|>=|<|>)\s*(?P<bound>[+-]?[0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True)
class Comparison:
    """One comparison of a rule.

    Args:
        measure: Name of the measure.
        sign: `<`, `<=`, `>` or `>=`.
        bound: The number that it is compared with.
    """

    measure: str
    sign: str
    bound: float

    def holds(self, facts: Mapping[str, Fact]) -> bool:
        """Whether facts by measure pass it; what was not measured does not."""
        fact = facts.get(self.measure)
        return fact is not None and _COMPARISONS[self.sign](float(fact.value), self.bound)


def comparisons(text: str | None, measures: Collection[str]) -> tuple[Comparison, ...]:
    """The comparisons of a rule like `margin > 0 and perplexity_ratio <= 1.5`; none without a rule.

    Args:
        text: The rule.
        measures: What it may compare.

    Raises:
        NotCheckable: It is no such rule.
    """
    found = []
    for part in re.split(r"\s+and\s+", text.strip()) if text else ():
        match = _COMPARISON.fullmatch(part.strip())
        if match is None or match["measure"] not in measures:
            known = ", ".join(measures)
            raise NotCheckable(f"{part!r} is no rule: compare one of {known} with a number, and join several by `and`")
        found.append(Comparison(match["measure"], match["sign"], float(match["bound"])))
    return tuple(found)
