"""What a text may refer to, and how its words are understood.

Invariant: a `Context` is what is known before a text is read: the models, judges, variants and files of the data. It
decides no verdict. Of several texts the nearest that names anything decides; what that one leaves open stays open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from steer_eval.claims.extract.numbers import signed_value
from steer_eval.claims.names import ModelNames

_GAP = r"[\s`*]{0,4}"
_LAYER = rf"\b(?:L|layers?){_GAP}[=:]?{_GAP}\[?(?P<layer>[0-9]{{1,4}})\b\]?"
_COEF = (
    rf"(?<![\w.])(?:c|coef|coefficient|α|alpha){_GAP}(?:=|:|\bof\b)?{_GAP}(?:c{_GAP}=)?{_GAP}"
    r"(?P<coef>[+\-−–]?[0-9]{1,6}(?:\.[0-9]{1,9})?)(?![\w.]*[0-9])"
)
_BETWEEN = r"[\s,;/`*()]{0,5}(?:(?:at|with|and|in|on|of|the|a|steering)\s){0,3}"
_CELLS = (
    re.compile(rf"{_LAYER}{_BETWEEN}{_COEF}", re.IGNORECASE),
    re.compile(rf"{_COEF}{_BETWEEN}{_LAYER}", re.IGNORECASE),
)
_LAYERS = re.compile(_LAYER, re.IGNORECASE)
_ANOTHER_LAYER = re.compile(
    r"[`*]{0,2}(?:,\s?(?:and\s)?|\s?(?:and|or|&|to|-|–)\s?)[`*]{0,2}(?P<layer>[0-9]{1,4})\b(?!\s?[%x×]|\.[0-9])",
    re.IGNORECASE,
)
_COEFS = re.compile(_COEF, re.IGNORECASE)
_FAMILY = re.compile(r"[A-Za-z]+")

AXES = {
    "mature_anger": ("mature_anger", "mature anger", "mature"),
    "juvenile_rage": ("juvenile_rage", "juvenile rage", "juvenile"),
    "coherence": ("coherence", "coherent"),
    "margin": ("margin",),
}
"""Words for the judge's axes."""


@dataclass(frozen=True)
class CellMention:
    """A layer with a coefficient in a text: `L=14 c=+1`, `layer 14, coefficient 1`, `c=+1 at layer 14`."""

    start: int
    end: int
    layer: int
    coef: float
    text: str


def cells_in(text: str) -> list[CellMention]:
    """The cells that a text names, in order."""
    found = [
        CellMention(match.start(), match.end(), int(match["layer"]), signed_value(match["coef"]), match[0])
        for pattern in _CELLS
        for match in pattern.finditer(text)
    ]
    found.sort(key=lambda cell: (cell.start, -cell.end))
    kept: list[CellMention] = []
    for cell in found:
        if not kept or cell.start >= kept[-1].end:
            kept.append(cell)
    return kept


def layers_in(text: str) -> list[re.Match[str]]:
    """Layers that a text names, each with a group `layer`; all of `layers 6, 10 and 14`."""
    found: list[re.Match[str]] = []
    for match in _LAYERS.finditer(text):
        listed: re.Match[str] | None = match
        plural = text[match.start() : match.start() + 6].lower() == "layers"
        while listed is not None:
            found.append(listed)
            listed = _ANOTHER_LAYER.match(text, listed.end()) if plural else None
    return found


def coefficients_in(text: str) -> list[re.Match[str]]:
    """Coefficients that a text names, each with a group `coef`."""
    return list(_COEFS.finditer(text))


@dataclass(frozen=True)
class Found:
    """What some texts speak of: its name, or the reason why there is none that could be meant."""

    name: str | None = None
    stranger: str = ""


@dataclass(frozen=True)
class JudgeMention:
    """A judge that a text mentions, where, and whether the word may as well mean a model that is steered."""

    start: int
    end: int
    judge: str
    doubtful: bool


@dataclass(frozen=True)
class Context:
    """What is known of the data that a text speaks about.

    Args:
        names: The models.
        judges: Names of judges in file names.
        files: Paths of the files.
        vector_files: Path to model and layer of each vector.
        feature_models: Feature ids to the models in whose table they stand.
        variants: Labels of variants.
        methods: Names of methods of comparisons; each stands for a method and for its control.
    """

    names: ModelNames
    judges: tuple[str, ...]
    files: tuple[str, ...]
    vector_files: Mapping[str, tuple[str, int]]
    feature_models: Mapping[int, tuple[str, ...]]
    variants: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    _judges_of: dict[str, Found | None] = field(default_factory=dict, repr=False, compare=False)
    _models_of: dict[str, Found | None] = field(default_factory=dict, repr=False, compare=False)

    def judge(self, *texts: str) -> str | None:
        """The judge that texts speak of, the nearest first; the only judge there is; None if it stays open.

        A judge may be called like a model that is steered, so `X-judged` or `judged by X` outweighs a mere mention, and
        a judge of a steered model's family is never merely mentioned.
        """
        for text in texts:
            found = self._judged(text)
            if found is not None:
                return found.name
        return self.judges[0] if len(self.judges) == 1 else None

    def judge_named(self, text: str) -> str | None:
        """The judge that the text of a column of judges names."""
        found = [judge for judge in self.judges if judge.casefold() in text.casefold()]
        return found[0] if len(found) == 1 else None

    def judges_in(self, text: str) -> list[JudgeMention]:
        """The judges that a short text, such as a header, mentions: `deepseek`, `DeepSeek-judged`, `judge: owl`."""
        found = []
        for judge in self.judges:
            pattern = rf"(?:\bjudge[ds]?\W{{1,3}}(?:by\W{{1,3}})?)?\b{re.escape(judge)}\b(?:[ -](?:judged?|scores?))?"
            for match in re.finditer(pattern, text, re.IGNORECASE):
                doubtful = "judge" not in match[0].lower() and self._is_family(judge)
                found.append(JudgeMention(match.start(), match.end(), judge, doubtful))
        return sorted(found, key=lambda mention: mention.start)

    def model(self, *texts: str) -> Found:
        """The model that texts speak of, the nearest first; the only one of the data; none if it stays open."""
        for text in texts:
            found = self._modelled(text)
            if found is not None:
                return found
        return Found(self.names.known[0] if len(self.names.known) == 1 else None)

    def _judged(self, text: str) -> Found | None:
        """The judge that a text speaks of; None if it speaks of none."""
        if text not in self._judges_of:
            self._judges_of[text] = None
            for judges, form in self._judge_forms:
                found = [each for each in judges if re.search(form.format(re.escape(each)), text, re.IGNORECASE)]
                if found:
                    self._judges_of[text] = Found(found[0] if len(found) == 1 else None)
                    break
        return self._judges_of[text]

    def _modelled(self, text: str) -> Found | None:
        """The model that a text speaks of; None if it speaks of none."""
        if text not in self._models_of:
            mentioned, strangers = self.names.mentioned(text), self.names.strangers(text)
            found = Found(mentioned[0] if len(mentioned) == 1 else None) if mentioned else None
            if strangers:
                found = Found(stranger=f"no model of the data is called {strangers[0]}")
            self._models_of[text] = found
        return self._models_of[text]

    @cached_property
    def _judge_forms(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """Ways to speak of a judge, the surest first, and the judges that each can be said of."""
        return (
            (self.judges, r"\b{0}[\w.-]{{0,32}}[ -]judg|judg\w{{0,8}}\W{{1,3}}(?:(?:by|is|was)\W{{1,3}})?{0}"),
            (tuple(judge for judge in self.judges if not self._is_family(judge)), r"\b{0}\b(?![.-]?[0-9])"),
        )

    def variant(self, text: str) -> str | None:
        """The label of the variant that a name means, case and punctuation aside; the name itself if none fits."""
        bare = text.strip(" *`_")
        fitting = [label for label in self.variants if _folded(label) == _folded(bare)]
        return fitting[0] if len(fitting) == 1 else bare or None

    def _is_family(self, judge: str) -> bool:
        families = [_FAMILY.match(base.rsplit("/", 1)[-1]) for base in self.names.base_models.values()]
        return any(family is not None and family[0].casefold() in judge.casefold() for family in families)


def _folded(label: str) -> str:
    return re.sub(r"[\s_-]+", "", label).casefold()
