"""Small synthetic studies on disk, whose every number is known in advance.

All sentences of the corpus have the unsteered perplexity 20. A steered cell's ratio is chosen by `RATIOS`; the
sentences spread around it so that the sums still give exactly that ratio while the bootstrap interval has a width.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from steer_eval.cards import render_data_repo, render_model_repo, write_rendered
from steer_eval.cells import Cell, plan, wants_text
from steer_eval.contrast import ContrastPair, pairs_digest
from steer_eval.environment import Environment
from steer_eval.evaluation.perplexity import ratio_interval
from steer_eval.formats.manifest import write_manifest
from steer_eval.formats.vector import SteeringVector, file_name, write_vector
from steer_eval.repository import StudyRepositories, open_study
from steer_eval.results import Results, SweepRow, Text
from steer_eval.results_files import load_results, write_environments, write_sweep
from steer_eval.study import Study, load_study

_SCRATCH = TemporaryDirectory(prefix="steer-eval-studies-", ignore_cleanup_errors=True)
MODEL_REPO = "persona"
DATA_REPO = "persona-data"
LAYERS = (1, 3)
COEFFICIENTS = (-1.0, 1.0, 2.0, 4.0)
BASE_PPL = 20.0
TOKENS = (10, 8, 12, 6, 4)
# By layer and coefficient; above 3 a cell counts as collapsed.
RATIOS = {
    **{(1, -1.0): 1.25, (1, 1.0): 1.25, (1, 2.0): 1.5, (1, 4.0): 2.0},
    **{(3, -1.0): 1.4, (3, 1.0): 1.6, (3, 2.0): 2.4, (3, 4.0): 5.0},
}
RANDOM_RATIO = 1.05
ANCHOR_RATIO = 1.2
HEX = "0123456789abcdef" * 4
PROMPTS = ("The lift is broken again.", "They lost my parcel.", "My desk was given away.")
PAIRS = tuple(
    {"scenario": f"Scenario {index}.", "angry": f"I am done with {index}.", "calm": f"I note {index}."}
    for index in range(4)
)
CORPUS = "One two three. Four five six seven. Eight nine. Ten eleven twelve. Thirteen."


def document(*, models: Sequence[str] = ("tiny",), claims: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What `study.yaml` says, as a value."""
    return {
        "schema": "steer-eval/study/1",
        "name": "persona",
        "title": "A persona",
        "description": "A synthetic study.",
        "repo": f"lab/{MODEL_REPO}",
        "data": f"lab/{DATA_REPO}",
        "models": {
            name: {"base_model": f"lab/{name}-base", "source": {"hub": {"id": f"lab/{name}-base", "revision": "main"}}}
            for name in models
        },
        "extraction": {
            "pairs": "contrast_pairs.jsonl",
            "positive": "angry",
            "negative": "calm",
            "layers": list(LAYERS),
        },
        "perplexity": {"corpus": "perplexity_corpus.txt", "resamples": 200},
        "sweep": {
            "prompts": "eval_prompts.jsonl",
            "coefficients": list(COEFFICIENTS),
            "controls": {
                "random": {"seed": 7, "text_coefficients": [2.0]},
                "anchor": {"system_prompt": "Be firm."},
            },
        },
        "tolerances": {
            "vector_norm": {"scale": "relative", "reproduced": 0.001, "drifted": 0.02},
            "vector_cosine": {"scale": "absolute", "reproduced": 0.0001, "drifted": 0.02},
            "perplexity_ratio": {"scale": "relative", "reproduced": 0.01, "drifted": 0.05},
            "perplexity": {"scale": "absolute", "reproduced": 0.5, "drifted": 2.0},
        },
        "claims": list(claims),
    }


def claim(measure: str, expected: Any, *, identity: str = "the-claim", **select: Any) -> dict[str, Any]:
    """One claim of a study document."""
    return {
        "id": identity,
        "claim": f"{measure} is {{expected}}",
        "measure": measure,
        "select": select,
        "expected": expected,
    }


def text_of(study_document: dict[str, Any]) -> str:
    return yaml.safe_dump(study_document, sort_keys=False, allow_unicode=True)


def write_study(folder: Path, study_document: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(text_of(study_document), encoding="utf-8")
    return folder / "study.yaml"


def vector(model: str, layer: int) -> SteeringVector:
    """The vector (3, 4, 0, layer), whose norm is known."""
    values = np.array([3.0, 4.0, 0.0, layer], dtype=np.float32)
    return SteeringVector(values, layer, provenance(model, layer, math.sqrt(25 + layer**2)))


def provenance(model: str, layer: int, norm: float) -> dict[str, str]:
    return {
        "format": "steer-eval/vector/1",
        "method": "caa",
        "positions": "completion",
        "model": f"lab/{model}-base",
        "revision": "main",
        "weights_sha256": HEX,
        "layer": str(layer),
        "norm": f"{norm:.9g}",
        "n_pairs": str(len(PAIRS)),
        "pairs_sha256": pairs_digest([ContrastPair(*pair.values()) for pair in PAIRS]),
        "dtype": "float32",
        "versions": json.dumps({"torch": "2.13.0"}),
    }


def row(study: Study, cell: Cell, ratio: float, *, spread: float = 0.2, text: Callable[[int], str] | None = None):
    """A sweep row that agrees with itself, with a chosen perplexity ratio.

    Args:
        study: Its bootstrap settings and its plan.
        cell: Which cell.
        ratio: The perplexity ratio.
        spread: How far the sentences lie around it, in nats; they cancel in the sum.
        text: The generation on each prompt.
    """
    tokens = np.array(TOKENS, dtype=np.int64)
    base = tokens * math.log(BASE_PPL)
    nll = base + tokens * math.log(ratio) + spread * np.array([1.0, -1.0, 1.0, -1.0, 0.0])
    protocol = study.perplexity
    interval = ratio_interval(
        nll, base, tokens, resamples=protocol.resamples, confidence=protocol.confidence, seed=protocol.seed
    )
    collapsed = ratio > study.sweep.collapse_ratio
    speaks = wants_text(study, cell) and not collapsed
    say = text or (lambda index: f"{cell}: text {index}")
    return SweepRow(
        cell=cell,
        base_ppl=BASE_PPL,
        ppl=BASE_PPL * ratio,
        ppl_ratio=ratio,
        collapsed=collapsed,
        generations=tuple(Text(i, prompt, say(i), 5, "eos") for i, prompt in enumerate(PROMPTS)) if speaks else (),
        interval=interval,
        undecided=interval.spans(study.sweep.collapse_ratio),
        sentence_nll=nll,
        sentence_tokens=tokens,
        system_prompt=study.sweep.anchor if cell.label == "anchor" else None,
    )


def ratio_of(cell: Cell) -> float:
    if cell.label == "steered":
        return RATIOS[cell.layer, cell.coef]
    return {"zero": 1.0, "anchor": ANCHOR_RATIO, "random": RANDOM_RATIO}[cell.label]


def rows(study: Study, model: str, **chosen: Any) -> list[SweepRow]:
    """All planned rows of a model. The zero control does not differ from the unsteered model in any sentence."""
    return [
        row(study, cell, ratio_of(cell), **{"spread": 0.0 if cell.label == "zero" else 0.2, **chosen})
        for cell in plan(study, model)
    ]


def environment(*, machine: str = "x86_64 AVX2") -> dict[str, Any]:
    measured = Environment(machine, "cpu", "float32", 2, {"torch": "2.13.0"})
    return {
        **measured.to_json(),
        "weights_sha256": HEX,
        "revision": "main",
        "batching": {"perplexity_rows": 8},
    }


@dataclass(frozen=True)
class OnDisk:
    """A study's two repos, side by side."""

    model: Path
    data: Path

    def study(self) -> Study:
        return load_study(self.model / "study.yaml")

    def results(self) -> Results:
        return load_results(self.study(), model_repo=self.model, data_repo=self.data)

    def repositories(self) -> StudyRepositories:
        return open_study(str(self.model))

    def seal(self) -> None:
        """Render the cards and write the manifests, as `steer-eval card` does."""
        study, results = self.study(), self.results()
        write_rendered(self.model, render_model_repo(study, results))
        write_rendered(self.data, render_data_repo(study, results))
        write_manifest(self.model)
        write_manifest(self.data)

    def edit_line(self, file: str, line: int, change: Callable[[dict[str, Any]], object]) -> None:
        """Change one row of a table in place."""
        lines = (self.data / file).read_text(encoding="utf-8").split("\n")
        value = json.loads(lines[line - 1])
        change(value)
        lines[line - 1] = json.dumps(value, ensure_ascii=False)
        (self.data / file).write_text("\n".join(lines), encoding="utf-8")

    def line_of(self, cell: Cell) -> int:
        """Line of a cell in its sweep."""
        return plan(self.study(), cell.model).index(cell) + 1


def build(folder: Path, *, models: Sequence[str] = ("tiny",), claims: Sequence[dict[str, Any]] = ()) -> OnDisk:
    """A whole, clean study in a folder; a copy of one that is built once."""
    place = OnDisk(folder / MODEL_REPO, folder / DATA_REPO)
    pristine = _pristine(tuple(models))
    shutil.copytree(pristine.model, place.model)
    shutil.copytree(pristine.data, place.data)
    if claims:
        write_study(place.model, document(models=models, claims=deepcopy(list(claims))))
        place.seal()
    return place


@cache
def _pristine(models: tuple[str, ...]) -> OnDisk:
    folder = Path(_SCRATCH.name) / "-".join(models)
    place = OnDisk(folder / MODEL_REPO, folder / DATA_REPO)
    study = load_study(write_study(place.model, document(models=models)))
    place.data.mkdir()
    for model in models:
        for layer in LAYERS:
            write_vector(place.model / file_name(model, layer), vector(model, layer))
        write_sweep(place.data, model, rows(study, model))
    write_lines(place.data / "contrast_pairs.jsonl", PAIRS)
    write_lines(place.data / "eval_prompts.jsonl", [{"scenario": prompt} for prompt in PROMPTS])
    (place.data / "perplexity_corpus.txt").write_text(CORPUS + "\n", encoding="utf-8")
    write_environments(place.data, {model: environment() for model in models})
    place.seal()
    return place


def write_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
