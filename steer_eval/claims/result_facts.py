"""Facts of results that are no files of a repo: what a re-run measured beside its cells.

Invariant: the same functions give them as those of published files, so that a claim is held to the same number under
the same name whoever measured it.
"""

from __future__ import annotations

from functools import lru_cache

from steer_eval.claims.claim import Selector
from steer_eval.claims.diagnostic_facts import facts_of_diagnostics
from steer_eval.claims.fact import Fact, Facts
from steer_eval.claims.sae_facts import feature_facts, quality_facts
from steer_eval.formats.features import table_of
from steer_eval.results import Results
from steer_eval.sae.results import features_file, quality_file


@lru_cache(maxsize=4)
def result_facts(results: Results) -> Facts:
    """Facts of SAEs' quality, feature tables and transfers' diagnostics; files are named as a run has them.

    Args:
        results: The results.
    """
    found: list[Fact] = []
    for (model, layer), quality in results.saes.items():
        file = quality_file(model, layer)
        found += quality_facts(quality, Selector(model, layer=layer, file=file), file)
    for (model, layer), table in results.feature_tables.items():
        file = features_file(model, layer)
        found += feature_facts(table_of(table), Selector(model, layer=layer, file=file), file)
    for name, document in results.transfers.items():
        file = f"transfer/{name}_diagnostics.json"
        found += facts_of_diagnostics(document, file, file)
    return Facts(found)
