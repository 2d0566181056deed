"""Readers and writers, one module per kind of file.

Invariant: a reader either returns values that satisfy the schema of their kind or raises `FormatError`; it never
executes anything from the file and never reads outside the folder that it was given.
"""
