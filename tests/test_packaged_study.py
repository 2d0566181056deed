"""The study that this project publishes: its texts keep what they promise, its files and cards are in order."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from steer_eval.claims.verdict import judge
from steer_eval.findings import worst
from steer_eval.formats.strict_json import read_jsonl
from steer_eval.published import published_results
from steer_eval.repository import StudyRepositories, open_study
from steer_eval.results_files import load_results
from steer_eval.validate import validate

CATEGORIES = {
    "workplace frustration",
    "repeated incompetence",
    "broken promises",
    "bureaucratic nonsense",
    "injustice",
}


@pytest.fixture(scope="module")
def repositories(packaged_study: Path) -> StudyRepositories:
    return open_study(str(packaged_study))


@pytest.fixture(scope="module")
def pairs(repositories: StudyRepositories) -> list[dict[str, str]]:
    return [row.value for row in read_jsonl(repositories.data.folder / "contrast_pairs.jsonl", schema="contrast_pair")]


@pytest.fixture(scope="module")
def prompts(repositories: StudyRepositories) -> list[dict[str, str]]:
    return [row.value for row in read_jsonl(repositories.data.folder / "eval_prompts.jsonl", schema="eval_prompt")]


def test_there_are_sixteen_pairs_of_each_category(pairs: list[dict[str, str]]) -> None:
    assert Counter(pair["category"] for pair in pairs) == dict.fromkeys(CATEGORIES, 16)


def test_the_replies_of_a_pair_differ_by_at_most_a_fifth_in_length(pairs: list[dict[str, str]]) -> None:
    for pair in pairs:
        mature, neutral = len(pair["mature_mad"]), len(pair["neutral"])
        assert abs(mature - neutral) <= 0.2 * min(mature, neutral), pair["scenario"]


def test_neither_reply_is_longer_on_average(pairs: list[dict[str, str]]) -> None:
    mature, neutral = (sum(len(pair[key]) for pair in pairs) for key in ("mature_mad", "neutral"))
    assert abs(mature - neutral) <= 0.03 * neutral


def test_all_texts_differ(pairs: list[dict[str, str]], prompts: list[dict[str, str]]) -> None:
    texts = [text for pair in pairs for text in (pair["scenario"], pair["mature_mad"], pair["neutral"])]
    texts += [prompt["scenario"] for prompt in prompts]
    assert len(set(texts)) == len(texts)


def test_the_prompts_are_held_out(pairs: list[dict[str, str]], prompts: list[dict[str, str]]) -> None:
    assert len(prompts) == 40
    known = [_words(pair["scenario"]) for pair in pairs]
    for prompt in prompts:
        words = _words(prompt["scenario"])
        assert all(len(words & other) / len(words | other) < 0.5 for other in known), prompt["scenario"]


def test_mature_anger_does_not_shout(pairs: list[dict[str, str]]) -> None:
    for pair in pairs:
        assert "!" not in pair["mature_mad"]
        assert not re.search(r"\b[A-Z]{4,}\b", pair["mature_mad"]), pair["mature_mad"]


def test_the_corpus_is_long_enough_for_the_collapse_bound(repositories: StudyRepositories) -> None:
    corpus = (repositories.data.folder / "perplexity_corpus.txt").read_text(encoding="utf-8")
    assert len(corpus.split()) >= 600


def test_no_text_is_taken_from_the_upstream_study(
    repositories: StudyRepositories, pairs: list[dict[str, str]], prompts: list[dict[str, str]], upstream: Path
) -> None:
    theirs = " ".join(
        (upstream / "dataset" / name).read_text(encoding="utf-8")
        for name in ("contrast_pairs.jsonl", "eval_prompts.jsonl", "perplexity_corpus.txt")
    )
    ours = [text for pair in pairs for text in (pair["scenario"], pair["mature_mad"], pair["neutral"])]
    ours += [prompt["scenario"] for prompt in prompts]
    ours.append((repositories.data.folder / "perplexity_corpus.txt").read_text(encoding="utf-8"))
    for text in ours:
        for sentence in re.split(r"(?<=[.?])\s+", text.strip()):
            assert len(sentence) < 25 or sentence not in theirs, sentence


def test_its_files_and_cards_are_in_order(repositories: StudyRepositories) -> None:
    findings = validate(repositories).findings
    assert worst(findings) in {None, "note"}, [finding for finding in findings if finding.severity != "note"]


def test_it_makes_at_least_twenty_claims_that_its_data_supports(repositories: StudyRepositories) -> None:
    verdicts = judge(repositories.study, published_results(repositories, validate(repositories)), None)
    assert len(verdicts) >= 20
    checked = [check for verdict in verdicts for check in verdict.checks if check.evidence == "published data"]
    assert {check.verdict for check in checked} == {"reproduced"}
    assert all(verdict.line for verdict in verdicts)


def test_it_carries_its_controls(repositories: StudyRepositories) -> None:
    study = repositories.study
    published = load_results(study, model_repo=repositories.model.folder, data_repo=repositories.data.folder)
    for sweep in published.sweeps.values():
        [zero], [anchor] = list(sweep.labelled("zero")), list(sweep.labelled("anchor"))
        assert zero.ppl_ratio == pytest.approx(1, abs=1e-6)
        assert len(zero.generations) == len(anchor.generations) == 40
        cells = len(study.sweep.layers) * len(study.sweep.coefficients)
        assert sum(1 for _ in sweep.labelled("steered")) == sum(1 for _ in sweep.labelled("random")) == cells


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z']{3,}", text.lower()))
