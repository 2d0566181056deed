"""A transfer between two layers of SmolLM2, with real numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_eval.contrast import ContrastPair
from steer_eval.extract import pair_differences
from steer_eval.formats.strict_json import read_jsonl
from steer_eval.transfer import neutral
from steer_eval.transfer.nulls import cka_test, r2_test, retrieval_test, sign_flip_test
from steer_eval.transfer.protocol import PLAIN, PROTOCOLS, RECOMMENDED
from steer_eval.transfer.rows import Side, paired_rows
from steer_eval.transfer.words import passages

SOURCE, TARGET = 16, 12


@pytest.fixture(scope="module")
def pairs(packaged_data: Path) -> list[ContrastPair]:
    rows = [row.value for row in read_jsonl(packaged_data / "contrast_pairs.jsonl", schema="contrast_pair")]
    return [ContrastPair(row["scenario"], row["mature_mad"], row["neutral"]) for row in rows[::3]]


@pytest.mark.slow
def test_a_direction_of_one_layer_is_carried_to_another(smollm2, pairs):
    texts = list(passages(neutral.sentences(), words=10**4))
    source, target = Side(smollm2, SOURCE), Side(smollm2, TARGET)
    found = {layer: each.numpy() for layer, each in pair_differences(smollm2, pairs, [TARGET, SOURCE]).items()}
    recommended, plain = PROTOCOLS[RECOMMENDED], PROTOCOLS[PLAIN]

    rows = paired_rows(source, target, texts, recommended.rows)
    ridge = recommended.fitters(seed=0)["ridge"]
    few = paired_rows(source, target, texts[: plain.texts], plain.rows)
    plain_ridge = plain.fitters(seed=0)["ridge"]

    # The sink, whose residual is a hundred times as long as any other, is not among the rows.
    norms = np.linalg.norm(rows.source, axis=1)
    assert len(rows.texts) > 600
    assert norms.max() < 10 * np.median(norms)
    explained = r2_test(rows, ridge, seed=0, draws=19)
    assert (explained.value > 0.6, explained.p, explained.bound < 0.02) == (True, 0.05, True)
    # Thirty rows are fitted all but exactly, whatever they are.
    by_few = plain_ridge(few.source, few.texts)(few.target)
    spread = ((few.target - few.target.mean(axis=0)) ** 2).sum()
    assert ((few.target - by_few.rows(few.source)) ** 2).sum() < 1e-3 * spread
    assert cka_test(rows, seed=0).value > 0.5

    carry = ridge(rows.source, rows.texts)(rows.target)
    kept = sign_flip_test(carry, found[SOURCE], found[TARGET], seed=0)
    assert kept.value > max(0.5, kept.bound)
    assert kept.p < 0.05
    by_plain = sign_flip_test(by_few, found[SOURCE], found[TARGET], seed=0)
    assert by_plain.value < kept.value
    assert retrieval_test(carry.direction(found[SOURCE]), found[TARGET], seed=0).value > 0.9
