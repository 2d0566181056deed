"""Tasks of lm-eval by name: ours, lm-eval's own, and those of a user's folder.

Invariant: a task that can't be had here (unknown, its data not on this disk and no network, a package missing, code
that it would run) is refused with a reason before any model is asked.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_eval.errors import FormatError, SteerEvalError, first_line
from steer_eval.formats.strict_yaml import parse as parse_yaml
from steer_eval.formats.text import read_text
from steer_eval.resources import folder

FEWSHOT_SEED = 1234
_MAX_BYTES = 2**20
_CHAT = "chat_template"


@dataclass(frozen=True, eq=False)
class Tasks:
    """Tasks that were loaded.

    Args:
        asked: What the user named.
        tasks: lm-eval's task objects, by name.
        groups: Its groups, by name.
    """

    asked: tuple[str, ...]
    tasks: Mapping[str, Any]
    groups: Mapping[str, Any]

    def wants_chat(self, name: str) -> bool:
        """Whether a task itself asks for the model's chat template."""
        return bool((self.tasks[name].config.metadata or {}).get(_CHAT))


def shipped_tasks() -> dict[str, Path]:
    """Tasks that ship with the package, by name."""
    found = {}
    for path in sorted(folder("tasks").glob("*.yaml")):
        name = f"tasks/{path.name}"
        # lm-eval's tag for a function is no YAML of ours; the name is all that is wanted.
        text = read_text(path, name, limit=_MAX_BYTES).replace("!function ", "")
        found[str(parse_yaml(text, name)["task"])] = path
    return found


def load_tasks(
    names: Sequence[str],
    *,
    metadata: Mapping[str, Any],
    include: Path | None = None,
    num_fewshot: int | None = None,
) -> Tasks:
    """Load tasks, groups and tags.

    Args:
        names: Their names.
        metadata: What tasks are told besides their own configuration.
        include: A folder with tasks of the user's; Python files in it are run.
        num_fewshot: Examples before each document; None for each task's own number.

    Raises:
        SteerEvalError: A task can't be had; the message says why.
    """
    from lm_eval.tasks import TaskManager

    # Reading the thousands of tasks that come with lm-eval takes twenty seconds.
    manager = TaskManager(
        include_path=[str(path) for path in (folder("tasks"), include) if path is not None],
        include_defaults=False,
        metadata=dict(metadata),
    )
    if not set(names) <= set(manager.all_tasks):
        manager = TaskManager(
            include_path=[str(path) for path in (folder("tasks"), include) if path is not None],
            metadata=dict(metadata),
        )
    for name in names:
        if name not in manager.all_tasks:
            close = difflib.get_close_matches(name, manager.all_tasks, n=3)
            raise SteerEvalError(
                f"lm-eval has no task {name}" + (f"; did you mean {', '.join(close)}?" if close else ""),
                "`lm-eval ls tasks` lists its own; without a download there are: " + ", ".join(shipped_tasks()),
            )
    try:
        loaded = [_loaded(manager, name) for name in dict.fromkeys(names)]
        merged = manager.load([item for each in loaded for item in _top(each)])
    except ValueError as error:
        raise SteerEvalError(f"the tasks can't be taken together: {first_line(error)}", "name each task once") from None
    for name, task in merged["tasks"].items():
        _prepare(name, task, num_fewshot)
    return Tasks(tuple(dict.fromkeys(names)), merged["tasks"], merged["groups"])


def _loaded(manager: Any, name: str) -> Any:
    """One task, group or tag, with what stands in its way in words."""
    try:
        return manager.load([name])
    except SteerEvalError:
        raise
    except ImportError as error:
        package = error.name or first_line(error)
        raise SteerEvalError(
            f"the task {name} needs the package {package}", f"python -m pip install {package}"
        ) from error
    except (OSError, LookupError, RuntimeError, ValueError) as error:
        offline = _offline(error)
        why = "its data is not on this disk, and there is no network" if offline else "it can't be loaded"
        raise SteerEvalError(
            f"the task {name}: {why}: {first_line(error)}",
            "run it once with a network (unset HF_HUB_OFFLINE and HF_DATASETS_OFFLINE); tasks that need no download: "
            + ", ".join(shipped_tasks())
            if offline
            else "check the task and its settings",
        ) from error


def _offline(error: BaseException) -> bool:
    """Whether something could not be fetched."""
    said = f"{type(error).__name__} {error}"
    words = ("OfflineMode", "ConnectionError", "Couldn't reach", "Max retries", "Name or service", "doesn't exist on")
    return any(word in said for word in words) or isinstance(error, ConnectionError)


def _top(loaded: Mapping[str, Any]) -> list[Any]:
    """What was loaded, without the parts of groups."""
    inside = {id(task) for group in loaded["groups"].values() for task in group.get_all_tasks()}
    below = {id(sub) for group in loaded["groups"].values() for sub in group.get_all_groups()}
    return [
        *(group for group in loaded["groups"].values() if id(group) not in below),
        *(task for task in loaded["tasks"].values() if id(task) not in inside),
    ]


def _prepare(name: str, task: Any, num_fewshot: int | None) -> None:
    """Set what lm-eval's command line sets, and refuse what only its user can allow."""
    if getattr(task, "UNSAFE_CODE", False):
        raise SteerEvalError(f"the task {name} runs code that the model writes", "use lm-eval itself, in a sandbox")
    if getattr(task, "MULTIMODAL", False):
        raise SteerEvalError(f"the task {name} shows pictures or sounds", "choose a task of texts")
    own = task.get_config("num_fewshot")
    if own is None:
        task.set_config(key="num_fewshot", value=num_fewshot or 0)
    elif num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


def parse_metadata(text: str | None) -> dict[str, Any]:
    """The metadata that a user gives on the command line.

    Args:
        text: A JSON object; None for nothing.

    Raises:
        FormatError: It is none.
    """
    from steer_eval.formats.strict_json import parse

    value = parse(text, "--metadata", "") if text else {}
    if not isinstance(value, dict):
        observed = type(value).__name__
        fix = "give an object, for example '{\"max_seq_lengths\": [512]}'"
        raise FormatError("--metadata", "", "no JSON object", expected="object", observed=observed, fix=fix)
    return value
