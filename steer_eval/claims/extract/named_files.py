"""The file of results that a heading or a caption names.

Invariant: what is taken from the name of a file is what its rows have in common: the model, the judge, or the file
itself where rows are known by labels. Two files that differ in any of these say nothing of it, and a file that the data
does not have is the reason why nothing beside it can be checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from steer_eval.claims.extract.context import AXES, Context
from steer_eval.rules.card_files import expanded
from steer_eval.rules.sweep_files import model_called

_FILE = re.compile(r"`(?P<path>[\w.{},/-]{1,300}\.(?:jsonl|json|csv|parquet|pt|safetensors))`")
_OF_A_FEATURE_TABLE = re.compile(r"(?P<model>.+)_L(?P<layer>[0-9]{1,4})_features\.json")
_SCORES = re.compile(r"judge_(?P<what>.+)\.jsonl")
_LABELLED = frozenset({"transfer", "phase_i"})


@dataclass(frozen=True)
class NamedFile:
    """What the name of a file says of the numbers that stand under it.

    Args:
        model: The model that its rows are of.
        judge: The judge that its scores are by.
        labelled: Its path, where its rows are known by labels of variants.
        layer: The layer that it is of.
        absent: Its name, where the data has no such file.
        diagnostics: Its path, where it has the diagnostics of a transfer.
    """

    model: str | None = None
    judge: str | None = None
    labelled: str | None = None
    layer: int | None = None
    absent: str = ""
    diagnostics: str | None = None

    def holds(self, measure: str) -> bool:
        """Whether a file of labelled variants can hold a measure: scores stand in files of scores only."""
        scores = self.labelled is not None and self.labelled.rsplit("/", 1)[-1].startswith("judge_")
        return self.labelled is not None and scores == (measure in AXES)


def file_named_by(words: str, context: Context) -> NamedFile | None:
    """What the files that some words name have in common; None where they name none.

    Args:
        words: A heading, or the words before a table.
        context: What the data has.
    """
    paths = [path for match in _FILE.finditer(words) for path in expanded(match["path"].removeprefix("./"))]
    if not paths:
        return None
    found = {path: _known(path, context) for path in paths}
    present = [_said(path, context) for path in found.values() if path is not None]
    if not present:
        return NamedFile(absent=", ".join(found))
    if None in found.values():
        return NamedFile()
    models, judges = {each.model for each in present} - {None}, {each.judge for each in present} - {None}
    labelled, layers = {each.labelled for each in present}, {each.layer for each in present}
    return NamedFile(
        models.pop() if len(models) == 1 else None,
        judges.pop() if len(judges) == 1 else None,
        labelled.pop() if len(labelled) == 1 else None,
        layers.pop() if len(layers) == 1 else None,
        diagnostics=present[0].diagnostics if len(present) == 1 else None,
    )


def _known(path: str, context: Context) -> str | None:
    """The one file of the data that a name means; a text may leave the folder out."""
    if "*" in path:
        return None
    fitting = [file for file in context.files if file == path or file.rsplit("/", 1)[-1] == path]
    return fitting[0] if len(fitting) == 1 else None


def _said(path: str, context: Context) -> NamedFile:
    """What the name of a file of the data says."""
    name = path.rsplit("/", 1)[-1]
    if path in context.vector_files:
        model, layer = context.vector_files[path]
        return NamedFile(model, layer=layer)
    if (features := _OF_A_FEATURE_TABLE.fullmatch(name)) and features["model"] in context.names.known:
        return NamedFile(features["model"], layer=int(features["layer"]))
    if name.startswith("sweep_"):
        model = name.removeprefix("sweep_").removesuffix(".jsonl")
        return NamedFile(model if model in context.names.known else None)
    if name.endswith("_diagnostics.json"):
        return NamedFile(diagnostics=path)
    if name.startswith("comparison_"):
        model = name.removeprefix("comparison_").removesuffix(".jsonl")
        return NamedFile(model if model in context.names.known else None)
    if scores := _SCORES.fullmatch(name):
        return _of_scores(path, scores["what"], context)
    return NamedFile(labelled=path if name.endswith("_eval.jsonl") else None)


def _of_scores(path: str, what: str, context: Context) -> NamedFile:
    """`<judge>_<model>` or `<judge>_transfer`; without a judge, its name stands in no file."""
    if what in _LABELLED:
        return NamedFile(labelled=path)
    judge, _, rest = what.partition("_")
    for known in context.judges:
        if what.startswith(f"{known}_"):
            judge, rest = known, what.removeprefix(f"{known}_")
    if rest in _LABELLED:
        return NamedFile(judge=judge, labelled=path)
    return NamedFile(model_called(rest, context.names.known), judge if judge in context.judges else None)
