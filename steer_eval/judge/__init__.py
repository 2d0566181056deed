"""Judges: scores of generated texts on a rubric, their agreement, and how far they can be trusted.

Invariant: a score is a number that a judge gave on the rubric's scale. Whatever else comes back (nothing, half an
answer, a number off the scale, a refusal) is `unscored`, with its reason and the raw reply; no score is ever made up.
"""
