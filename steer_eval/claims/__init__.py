"""Claims as data, the measures they are checked with, and the verdicts.

Invariant: everything here is a pure function of a `Study` and of `Results`; nothing reads files or runs models.
"""
