"""What `validate` asks of results, one module per kind of thing.

Invariant: a rule is a pure function from the study and its results to findings; it reads no file. Every rule stands in
the catalogue.
"""
