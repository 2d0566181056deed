"""What is given to judges: the cells of a repo or a run, with what the repo says of them already.

Invariant: a run directory is a dataset repo, so both are read by the same code; what could not be read is told, and
never silently missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steer_eval.cells import Cell
from steer_eval.contrast import ContrastPair
from steer_eval.errors import SteerEvalError
from steer_eval.judge.file_names import Table, table_of
from steer_eval.judge.recorded import RecordedJudge, recorded_judges
from steer_eval.judge.rubric import Rubric
from steer_eval.judge.subjects import Subject, subjects_of
from steer_eval.repository import StudyRepositories, open_study, open_target
from steer_eval.results_files import load_results
from steer_eval.study import FILE, Study

_MEASURED = ("sweep_", "comparison_")
"""How the files of measured cells begin."""


@dataclass(frozen=True)
class Case:
    """Cells to judge.

    Args:
        name: How the user named the repo or run.
        study: The study.
        folder: Folder of the study, for its models.
        data: Folder of the dataset repo, or the run.
        subjects: Cells with text of sweeps and comparisons, controls included.
        pairs: Contrast pairs; empty where they can't be read.
        recorded: Published judges.
        unusable: Sweeps and comparisons that could not be read, with the reason.
        is_run: Whether it is a run directory.
    """

    name: str
    study: Study
    folder: Path
    data: Path
    subjects: tuple[Subject, ...]
    pairs: tuple[ContrastPair, ...]
    recorded: tuple[RecordedJudge, ...]
    unusable: tuple[str, ...]
    is_run: bool

    @property
    def models(self) -> Sequence[str]:
        """Models whose cells there are."""
        return list(dict.fromkeys(cell.model for cell in self.cells))

    @property
    def cells(self) -> Sequence[Cell]:
        """The cells."""
        return [subject.cell for subject in self.subjects]

    def only(self, table: Table) -> Case:
        """The same with the cells of one table alone.

        Raises:
            SteerEvalError: It has none with text.
        """
        subjects = tuple(subject for subject in self.subjects if table_of(subject.cell) == table)
        if not subjects:
            command = "sweep" if table == "sweep" else "compare"
            raise SteerEvalError(f"{self.name} has no {table} with text", f"run `steer-eval {command}` first")
        return replace(self, subjects=subjects)


def open_case(target: str, data: str | None, study_file: str | None, rubric: Rubric) -> Case:
    """Open what is to be judged.

    Args:
        target: A run directory or a model repo.
        data: The dataset repo, if it is not the one that the study names.
        study_file: A study for a repo that has none.
        rubric: Axes of published judges to read.

    Raises:
        SteerEvalError: There is no study, or no cell with text.
        FormatError: The study, or a published file of scores, is bad.
    """
    is_run = data is None and study_file is None and _is_run(Path(target))
    repositories = open_study(target, target) if is_run else open_target(target, data, study_file)
    if not isinstance(repositories, StudyRepositories):
        raise SteerEvalError(f"{target} has no study.yaml", "name the study with --study FILE|NAME")
    return case_of(repositories, target, rubric, is_run=is_run)


def case_of(repositories: StudyRepositories, name: str, rubric: Rubric, *, is_run: bool) -> Case:
    """What is to be judged of repos that are open.

    Args:
        repositories: The study and its repos.
        name: How the user named them.
        rubric: Axes of published judges to read.
        is_run: Whether they are a run directory.

    Raises:
        SteerEvalError: There is no cell with text.
        FormatError: A published file of scores is bad.
    """
    study, folder = repositories.study, repositories.data.folder
    results = load_results(study, model_repo=repositories.model.folder, data_repo=folder)
    tables = (*results.sweeps.values(), *results.comparisons.values())
    subjects = subjects_of(row for table in tables for row in table.rows)
    unusable = tuple(results.why_absent(file) for file in results.unusable if file.startswith(_MEASURED))
    if not subjects:
        raise SteerEvalError(
            f"{name} has no cell with text" + "".join(f"; {reason}" for reason in unusable),
            "run `steer-eval sweep` first, or name the dataset repo with --data",
        )
    return Case(
        name,
        study,
        repositories.model.folder,
        folder,
        tuple(subjects),
        results.pairs or (),
        tuple(recorded_judges(folder, subjects, rubric)),
        unusable,
        is_run,
    )


def default_folder(case: Case) -> Path:
    """Where judgements go unless the user says otherwise."""
    return case.data if case.is_run else Path("runs") / f"{case.study.name}-judge"


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run directory: study and measured cells in one place."""
    tables = (f"{start}*.jsonl" for start in _MEASURED)
    return (folder / FILE).is_file() and any(True for pattern in tables for _ in folder.glob(pattern))
