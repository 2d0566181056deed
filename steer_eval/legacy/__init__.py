"""What the cards of a study without `study.yaml` say, computed from its files alone.

Invariant: each module gives plain values, from the inventory, the facts and the findings; words are in the templates.
"""
