"""Model and dataset cards, rendered from the data.

Invariant: a card is a pure function of the study and its results. Measured numbers are looked up in the results and
claimed ones in the study, so a card that differs from its rendering is wrong or out of date; whether a claimed number
holds is for verdicts to say.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from steer_eval import markdown
from steer_eval.card_metadata import dataset_front_matter, model_front_matter
from steer_eval.card_templates import card_templates
from steer_eval.card_views import comparison_view, feature_views, sae_views, transfer_views
from steer_eval.cells import Cell, plan
from steer_eval.errors import FormatError
from steer_eval.findings import Finding
from steer_eval.formats.atomic import write_text
from steer_eval.formats.containment import inside
from steer_eval.formats.pin import DATA, DataPin, data_pin, pinned
from steer_eval.formats.saelens import folder_name
from steer_eval.formats.strict_json import read_json
from steer_eval.formats.text import read_text
from steer_eval.formats.vector import file_name
from steer_eval.heatmap import render_heatmap
from steer_eval.judge.file_names import scores_file
from steer_eval.judge.tables import agreements
from steer_eval.model_reference import PypiSource
from steer_eval.repository import Repository
from steer_eval.results import Results, SweepRow
from steer_eval.results_files import comparison_file, sweep_file
from steer_eval.study import Study

MODEL_CARD = "README.md"
DATASET_CARD = "README.md"
CONFIG = "config.json"
MAX_BYTES = 16 * 2**20


def heatmap_file(model: str) -> str:
    """Path of a model's perplexity heat map inside a model repo."""
    return f"figures/perplexity_{model}.svg"


def render_model_repo(study: Study, results: Results, pin: DataPin | None = None) -> dict[str, str]:
    """Everything in a model repo that is rendered from data: the card, `config.json` and figures, by path.

    Args:
        study: The study.
        results: Its results.
        pin: The commit of the dataset repo that the model repo belongs to, of a published one.
    """
    figures = {
        heatmap_file(model): render_heatmap(study, model, sweep)
        for model, sweep in results.sweeps.items()
        if sweep.rows
    }
    card = _render("model_card.md.jinja", study, results, model_front_matter(study, results))
    return {MODEL_CARD: card, CONFIG: _model_config(study, pin), **figures}


def present_pin(study: Study, repo: Path) -> DataPin | None:
    """The pin that a model repo's `config.json` has; None where it has none, a bad one or one of another repo.

    No data gives a pin, so the one that is there is kept where the file is rendered or compared.
    """
    try:
        config: Any = read_json(inside(repo, CONFIG), name=CONFIG)
        pin = data_pin(config) if isinstance(config, dict) else None
    except FormatError:
        return None
    return pin if pin is not None and pin.repo == study.data else None


def render_data_repo(study: Study, results: Results) -> dict[str, str]:
    """Everything in a dataset repo that is rendered from data: the card and `config.json`, by path."""
    card = _render("dataset_card.md.jinja", study, results, dataset_front_matter(study, results))
    return {DATASET_CARD: card, CONFIG: _data_config(study)}


def write_rendered(target: Path, rendered: dict[str, str]) -> list[str]:
    """Write rendered files; returns the paths of those that changed."""
    changed = [path for path, text in rendered.items() if _read(target, path) != text]
    for path in changed:
        write_text(inside(target, path), rendered[path])
    return changed


def check_cards(study: Study, results: Results, *, model: Repository, data: Repository) -> list[Finding]:
    """Compare both repos' rendered files with what the data gives, line by line."""
    findings: list[Finding] = []
    model_repo = render_model_repo(study, results, present_pin(study, model.folder))
    for repo, rendered in ((model, model_repo), (data, render_data_repo(study, results))):
        for path, text in rendered.items():
            findings += differences(f"{repo.name}/{path}", text, _read(repo.folder, path))
    return findings


def differences(file: str, expected: str, observed: str | None) -> Iterator[Finding]:
    """Where a rendered file differs from what the data gives, line by line.

    Args:
        file: Its name in findings.
        expected: What the data gives.
        observed: What is there; None without such a file.
    """
    fix = "run `steer-eval card` to render it from the data"
    if observed is None:
        yield Finding("card-absent", "error", file, "", "there is no such text file", fix=fix)
        return
    wanted, present = expected.splitlines(), observed.splitlines()
    matcher = difflib.SequenceMatcher(None, wanted, present, autojunk=False)
    for operation, first, last, start, end in matcher.get_opcodes():
        if operation != "equal":
            message = "the line does not say what the data gives" if end > start else "a line is missing here"
            yield Finding(
                "card-differs",
                "error",
                file,
                f"line {start + 1}",
                message,
                "\n".join(wanted[first:last]) or None,
                "\n".join(present[start:end]) or None,
                fix,
            )


def _read(repo: Path, path: str) -> str | None:
    try:
        return read_text(inside(repo, path), path, limit=MAX_BYTES)
    except FormatError:
        return None


@cache
def _templates() -> Any:
    return card_templates(
        paragraphs=markdown.paragraphs,
        inert=markdown.inert,
        plain=markdown.plain,
        # As `format`, and what rounds to zero has no sign.
        rounded=lambda value, spec: f"{value:{spec}}",
    )


def _render(template: str, study: Study, results: Results, front_matter: str) -> str:
    rendered: str = (
        _templates()
        .get_template(template)
        .render(
            front_matter=front_matter,
            study=study,
            results=results,
            models=[_model_view(study, results, model) for model in study.models],
            transfers=transfer_views(study, results),
            claims=study.claims,
        )
    )
    return rendered


def _model_view(study: Study, results: Results, model: str) -> dict[str, Any]:
    """What the templates say about one model, looked up in the results."""
    sweep = results.sweeps.get(model)
    coefficients = study.coefficients(model)

    def row(cell: Cell) -> SweepRow | None:
        return sweep.find(cell) if sweep else None

    def grid(label: Any) -> list[dict[str, Any]]:
        return [
            {"layer": layer, "rows": [row(Cell(model, label, layer, coef)) for coef in coefficients]}
            for layer in study.layers(model)
        ]

    reference = study.models[model]
    rows = sweep.rows if sweep else ()
    return {
        "name": model,
        "reference": reference,
        "pypi": reference.source if isinstance(reference.source, PypiSource) else None,
        "environment": results.environments.get(model),
        "vectors": [
            {
                "file": results.vector_file(model, layer),
                "layer": layer,
                "vector": results.vectors.get((model, layer)),
            }
            for layer in study.vector_layers(model)
        ],
        "sweep_file": sweep_file(model),
        "heatmap": heatmap_file(model) if rows else None,
        "coefficients": coefficients,
        "steered": grid("steered"),
        "random": grid("random"),
        "zero": next(sweep.labelled("zero"), None) if sweep else None,
        "anchor": next(sweep.labelled("anchor"), None) if sweep else None,
        "judged": [
            (each, agreements(each, results.judges)) for each in results.judges if each.model == model and each.rows
        ],
        "saes": sae_views(study, results, model),
        "features": feature_views(study, results, model),
        "compared": comparison_view(study, results, model),
        "judged_comparisons": [
            (scores_file(each.judge, model, "comparison"), each)
            for each in results.judges
            if each.model == model and each.compared
        ],
        "row_count": len(rows),
        "planned": len(plan(study, model)),
        "text_count": sum(len(each.generations) for each in rows),
        "undecided": [each for each in rows if each.collapse_undecided(study.sweep.collapse_ratio)],
    }


def _model_config(study: Study, pin: DataPin | None) -> str:
    """What loaders need to find the vectors; the Hub counts downloads by this file."""
    vectors = [
        {"model": model.base_model, "layer": layer, "file": file_name(name, layer)}
        for name, model in study.models.items()
        for layer in study.vector_layers(name)
    ]
    repo = {"repo": study.repo} if study.repo else {}
    config: dict[str, Any] = {**repo, DATA: study.data, "method": study.extraction.method, "vectors": vectors}
    if study.saes:
        config["saes"] = [
            {
                "model": study.models[plan.model].base_model,
                "layer": plan.layer,
                "file": folder_name(plan.model, plan.layer),
            }
            for plan in study.saes
        ]
    return _config(study, pinned(config, pin.revision) if pin else config)


def _data_config(study: Study) -> str:
    """Which table is which."""
    tables: dict[str, str | dict[str, str]] = {
        "contrast_pairs": study.extraction.pairs,
        "eval_prompts": study.sweep.prompts,
        "perplexity_corpus": study.perplexity.corpus,
        "sweep": {name: sweep_file(name) for name in study.models},
    }
    if study.comparisons:
        tables["comparison"] = {plan.model: comparison_file(plan.model) for plan in study.comparisons}
    model_repo = {"model_repo": study.repo} if study.repo else {}
    return _config(study, {"repo": study.data, **model_repo, "tables": tables})


def _config(study: Study, content: dict[str, Any]) -> str:
    return json.dumps({"library_name": "steer-eval", "study": study.name, **content}, indent=2) + "\n"
