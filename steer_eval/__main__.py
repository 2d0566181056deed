"""`python -m steer_eval` is the `steer-eval` command.

Invariant: nothing happens here that does not happen there.
"""

from steer_eval.cli.main import main

if __name__ == "__main__":
    main()
