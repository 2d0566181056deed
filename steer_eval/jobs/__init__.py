"""Reproductions on other machines: what a job is, how it is written, and how it is submitted and followed.

Invariant: a job says everything that it will do before it is submitted, with every input pinned; a token is part of no
job, and goes to the machine as a secret of its own.
"""
