"""lm-eval's own command line, with our model type and tasks.

Invariant: nothing of lm-eval's is changed but what it knows: `--model steer-eval` and the tasks of `tasks/`. By itself
it finds no models of other packages.

Example:
    python -m steer_eval.capability run --model steer-eval \
        --model_args target=artifacts/smollm2-135m-mature-anger,layer=18,coef=2 --tasks steer_eval_choices
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from steer_eval.resources import folder


def arguments(given: Sequence[str]) -> list[str]:
    """lm-eval's arguments with our tasks among those that it looks through.

    Args:
        given: What the user gave.
    """
    if not given or given[0] not in {"run", "ls", "validate"} or "--include_path" in given:
        return list(given)
    return [*given, "--include_path", str(folder("tasks"))]


def main() -> None:
    """Run lm-eval's command line."""
    from lm_eval.__main__ import cli_evaluate

    from steer_eval.capability.lm_eval_model import register

    register()
    sys.argv = [sys.argv[0], *arguments(sys.argv[1:])]
    cli_evaluate()


if __name__ == "__main__":
    main()
