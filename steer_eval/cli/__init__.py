"""The command line: one module per command; `main` only registers them.

Invariant: a command module imports nothing heavy at its top, so that `--help` is quick; standard output carries the
result, standard error everything else.
"""
