"""Check, re-run and publish activation-steering studies on the Hugging Face Hub.

Data flows one way: a `Study` plans cells, cells are measured into `Results`, and claims, verdicts and cards are pure
functions of `Results`, whoever measured them.
"""

__version__ = "0.1.0"
