"""Claims in the metadata of the Hub: `model-index` of a card, and `.eval_results/*.yaml`.

Invariant: each metric value that is a number is found once, with the line and columns that it has in the file. It is a
claim only if its entry names a measure and, in `args` or `notes`, what that was taken on; an argument that is not known
may change the meaning, so an entry with one is not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import yaml

from steer_eval.claims.claim import Claim, Label, Selector
from steer_eval.claims.extract.context import Context, Found, cells_in
from steer_eval.claims.extract.extracted import NOT_UNDERSTOOD, Extracted
from steer_eval.claims.extract.meanings import LOCATORS, fitted, meaning, reduced
from steer_eval.claims.extract.numbers import one_number
from steer_eval.claims.facts import DEFINITIONS
from steer_eval.claims.printed import Printed
from steer_eval.errors import FormatError
from steer_eval.formats import strict_yaml
from steer_eval.formats.card import front_matter_lines

_ARGUMENTS = {
    "model": "model",
    "layer": "layer",
    "coef": "coef",
    "coefficient": "coef",
    "c": "coef",
    "judge": "judge",
    "feature": "feature",
    "feature_id": "feature",
    "variant": "variant",
    "method": "variant",
    "label": "label",
}
"""Arguments that say what a metric was taken on."""

_LABELS = frozenset({"steered", "zero", "random", "anchor"})
_PLAIN = re.compile(r"[+-]?[0-9]{1,9}(?:\.[0-9]+)?")
_TRUTH = {"true": True, "false": False}


def model_index_claims(text: str, context: Context) -> Iterator[Extracted]:
    """The metric values of a card's `model-index`.

    Args:
        text: The whole card.
        context: What the data has.
    """
    count = front_matter_lines(text)
    if count == 0:
        return
    lines = text.split("\n")[: count - 1]
    lines[0] = ""  # The fence; its line is kept, so that lines count as in the file.
    root = _composed("\n".join(lines))
    # A model index names one model; cards of several steered models name each in an entry of its own.
    for entry in _items(_at(root, "model-index")):
        for result in _items(_at(entry, "results")):
            around = [_text(_at(_at(result, key), "name")) for key in ("dataset", "task")] + [_text(_at(entry, "name"))]
            for metric in _items(_at(result, "metrics")):
                names = [_text(_at(metric, key)) for key in ("type", "name")]
                arguments = {**_arguments(_at(metric, "args")), **_arguments(_at(metric, "config"))}
                value = _at(metric, "value")
                if value is not None:
                    yield from _Entry(lines, names, arguments, [names[1], *around], context).claims(value)


def eval_result_claims(text: str, context: Context) -> Iterator[Extracted]:
    """The values of a file of `.eval_results`.

    Args:
        text: The file: a list of entries with `dataset.task_id`, `value` and perhaps `notes`.
        context: What the data has.
    """
    lines = text.split("\n")
    for entry in _items(_composed(text)):
        dataset, notes = _at(entry, "dataset"), _text(_at(entry, "notes"))
        value = _at(entry, "value")
        if value is not None:
            names = [_text(_at(dataset, "task_id"))]
            # Notes are words: the cell, the judge and the model in them are the arguments.
            arguments: dict[str, str] = {}
            if cells := cells_in(notes):
                arguments = {"layer": str(cells[0].layer), "coef": str(cells[0].coef)} if len(cells) == 1 else {"?": ""}
            if judge := context.judge(notes):
                arguments["judge"] = judge
            yield from _Entry(lines, names, arguments, [notes], context).claims(value)


@dataclass(frozen=True)
class _Entry:
    lines: list[str]
    names: list[str]
    arguments: Mapping[str, str]
    around: list[str]
    context: Context

    def claims(self, node: yaml.Node) -> Iterator[Extracted]:
        """The claim that the value of this entry makes; a value that is no number makes none."""
        if not isinstance(node, yaml.ScalarNode) or node.style in ("|", ">"):
            return
        row, column = node.start_mark.line, node.start_mark.column + (1 if node.style else 0)
        written = self.lines[row][column : column + len(node.value)]
        number = one_number(written)
        truth = _TRUTH.get(written)
        expected: Printed | bool
        if written != node.value or (number is None and truth is None):
            return
        measure, select = self._measure(), self._select()
        made = fitted(measure, number) if measure and number is not None else None
        start, length = (column + number.start, len(number.text)) if number else (column, len(written))
        identity = f"{row + 1}:{start + 1}"
        title = next(filter(None, self.names), "value")
        if measure == "collapsed" and truth is not None and isinstance(select, Selector):
            expected = truth
        elif made is not None and isinstance(select, Selector):
            measure, expected = made
        else:
            reason = select if isinstance(select, str) else NOT_UNDERSTOOD
            claim = Claim(identity, f"{title}: {written}", "", Selector(), number.printed if number else bool(truth))
            yield Extracted(claim, row + 1, start, start + length, reason)
            return
        chosen = reduced(measure, select)
        # By a method's name go the method and its control.
        of_method = select.variant in self.context.methods
        select = replace(chosen, label=select.label or "steered") if of_method else chosen
        inferred = self.context.names.how(select.model) if select.model else ""
        bound = number.bound if number else ""
        claim = Claim(identity, f"{title}: {written}", measure, select, expected)
        yield Extracted(claim, row + 1, start, start + length, bound=bound, inferred=inferred)

    def _measure(self) -> str | None:
        """The measure that the entry names: the same one wherever it names one."""
        found = set()
        for name in self.names:
            folded = re.sub(r"[\s-]+", "_", name.strip().lower())
            measure = folded if folded in DEFINITIONS else meaning(name)
            if measure is not None and measure not in LOCATORS:
                found.add(measure)
        return found.pop() if len(found) == 1 else None

    def _select(self) -> Selector | str:
        """What the entry was taken on, or why that is not known."""
        given = {_ARGUMENTS.get(key.lower(), ""): value for key, value in self.arguments.items()}
        if "" in given or len(given) != len(self.arguments):
            return NOT_UNDERSTOOD
        model = self._model(given.get("model", ""))
        if model.stranger:
            return model.stranger
        numbers: dict[str, float] = {}
        for key in ("layer", "coef", "feature"):
            if key in given:
                number = one_number(given[key])
                if number is None or not number.readable or not _PLAIN.fullmatch(number.text):
                    return NOT_UNDERSTOOD
                numbers[key] = number.printed.value
        judge = given.get("judge")
        known = self.context.judge_named(judge) if judge else None
        if judge and known is None:
            return f"the data has no scores of a judge called {judge}"
        label = given.get("label", "steered" if {"layer", "coef"} <= numbers.keys() else "")
        if label and label not in _LABELS:
            return NOT_UNDERSTOOD
        only = self.context.judges[0] if len(self.context.judges) == 1 else None
        return Selector(
            model.name,
            cast("Label | None", label or None),
            int(numbers["layer"]) if "layer" in numbers else None,
            numbers.get("coef"),
            known or only,
            int(numbers["feature"]) if "feature" in numbers else None,
            self.context.variant(given.get("variant", "")),
        )

    def _model(self, named: str) -> Found:
        if named:
            model = self.context.names.resolve(named)
            return Found(model) if model else Found(stranger=f"no model of the data is called {named}")
        return self.context.model(*filter(None, self.around))


def _composed(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, which know their places; None where it is no strict YAML."""
    try:
        strict_yaml.parse(text, "")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (FormatError, yaml.YAMLError, RecursionError, ValueError):
        return None


def _at(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _text(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _arguments(node: yaml.Node | None) -> dict[str, str]:
    """Arguments by name; one that is no scalar makes the entry one that is not understood."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _text(value) for key, value in node.value}
    return {} if node is None or not _text(node) else {"?": _text(node)}
