"""Mistakes in a synthetic study, each with the rule that finds it and the place where it is found."""

from __future__ import annotations

from studies import HEX, claim, vector
from study_edits import (
    CORPUS,
    LAST,
    LINE,
    OTHER,
    PAIRS,
    PROMPTS,
    STUDY,
    SUMS,
    SWEEP,
    VECTOR,
    of_every_row,
    of_file,
    of_line,
    of_row,
    pinned,
    remove_row,
    repeat_row,
    templated,
    two_widths,
    undecided,
    undecided_without,
    unplanned_row,
    with_claims,
    with_environment,
    with_tolerance,
    with_vector,
)

from steer_eval.formats.vector import file_name

# What is done to a clean study, before its cards and manifests are written again: the one finding that it gives.
MISTAKES = {
    "NaN in a row": (
        of_line("sweep_tiny.jsonl", LINE, '{"layer": NaN}'),
        [("error", "not-finite", SWEEP, f"line {LINE}"), ("error", "sweep-missing", SWEEP, "")],
    ),
    "row against its schema": (
        of_row(lambda value: value.update(ppl=-1.0)),
        [("error", "table", SWEEP, f"line {LINE}: ppl"), ("error", "sweep-missing", SWEEP, "")],
    ),
    "blank line among pairs": (of_line("contrast_pairs.jsonl", 2, ""), [("error", "table", PAIRS, "line 2")]),
    "pair without a reply": (
        lambda place: place.edit_line("contrast_pairs.jsonl", 3, lambda pair: (pair.pop("calm"), pair.update(x="y"))),
        [("error", "table", PAIRS, "line 3")],
    ),
    "empty prompts": (of_file("eval_prompts.jsonl", b""), [("error", "table", PROMPTS, "line 1")]),
    "prompts not UTF-8": (of_file("eval_prompts.jsonl", b'{"\xff"}'), [("error", "table", PROMPTS, "byte 2")]),
    "corpus absent": (
        lambda place: (place.data / "perplexity_corpus.txt").unlink(),
        [("error", "table", CORPUS, "")],
    ),
    "corpus not UTF-8": (of_file("perplexity_corpus.txt", b"ab\xff"), [("error", "table", CORPUS, "byte 2")]),
    "corpus empty": (of_file("perplexity_corpus.txt", b" \n"), [("error", "table", CORPUS, "")]),
    "wrong ratio": (
        of_row(lambda value: value.update(ppl_ratio=2.5)),
        [("error", "sweep-arithmetic", SWEEP, f"line {LINE}: ppl_ratio")],
    ),
    "wrong flag": (
        of_row(lambda value: value.update(collapsed=True, generations=[])),
        [("error", "sweep-arithmetic", SWEEP, f"line {LINE}: collapsed")],
    ),
    "wrong interval": (
        of_row(lambda value: value["ppl_ratio_interval"].__setitem__(1, 2.9)),
        [("error", "sweep-arithmetic", SWEEP, f"line {LINE}: ppl_ratio_interval[1]")],
    ),
    "wrong base perplexity": (
        of_row(lambda value: value.update(base_ppl=24.0, ppl_ratio=2.0)),
        [("error", "sweep-arithmetic", SWEEP, f"line {LINE}: base_ppl")],
    ),
    "wrong mark of an open collapse": (
        of_row(lambda value: value.update(collapse_undecided=True)),
        [("error", "sweep-arithmetic", SWEEP, f"line {LINE}: collapse_undecided")],
    ),
    "cell that is not planned": (unplanned_row, [("warning", "sweep-unplanned", SWEEP, f"line {LAST}")]),
    "another system prompt": (
        of_row(lambda value: value.update(system_prompt="Be kind."), 2),
        [("error", "sweep-anchor", SWEEP, "line 2: system_prompt")],
    ),
    "anchor without a system prompt": (
        of_row(lambda value: value.pop("system_prompt"), 2),
        [("error", "sweep-anchor", SWEEP, "line 2: system_prompt")],
    ),
    "steered with a system prompt": (
        of_row(lambda value: value.update(system_prompt="Be firm.")),
        [("error", "sweep-anchor", SWEEP, f"line {LINE}: system_prompt")],
    ),
    "zero with a system prompt": (
        of_row(lambda value: value.update(system_prompt="Be firm."), 1),
        [("error", "sweep-anchor", SWEEP, "line 1: system_prompt")],
    ),
    "random with a system prompt": (
        of_row(lambda value: value.update(system_prompt=""), LAST - 1),
        [("error", "sweep-anchor", SWEEP, f"line {LAST - 1}: system_prompt")],
    ),
    "prompt among the pairs": (
        lambda place: place.edit_line(
            "contrast_pairs.jsonl", 2, lambda pair: pair.update(scenario="they  LOST my\tparcel. ")
        ),
        [
            ("error", "prompt-leak", PROMPTS, "line 2"),
            ("error", "vector-pairs", VECTOR.replace("L3", "L1"), "__metadata__.pairs_sha256"),
            ("error", "vector-pairs", VECTOR, "__metadata__.pairs_sha256"),
        ],
    ),
    "vector of other pairs": (
        with_vector(pairs_sha256=OTHER),
        [("error", "vector-pairs", VECTOR, "__metadata__.pairs_sha256")],
    ),
    "pair added": (
        lambda place: (
            (place.data / "contrast_pairs.jsonl").open("a").write('{"scenario": "New.", "angry": "x", "calm": "y"}\n')
        ),
        [
            ("error", "vector-pairs", VECTOR.replace("L3", "L1"), "__metadata__.n_pairs"),
            ("error", "vector-pairs", VECTOR, "__metadata__.n_pairs"),
        ],
    ),
    "vector of more pairs": (with_vector(n_pairs="5"), [("error", "vector-pairs", VECTOR, "__metadata__.n_pairs")]),
    "vector of other weights": (
        with_vector(weights_sha256=OTHER),
        [("error", "vector-weights", VECTOR, "__metadata__.weights_sha256")],
    ),
    "sweep of other weights": (
        with_environment(weights_sha256=OTHER),
        [
            ("error", "vector-weights", VECTOR.replace("L3", "L1"), "__metadata__.weights_sha256"),
            ("error", "vector-weights", VECTOR, "__metadata__.weights_sha256"),
        ],
    ),
    "study of other weights": (
        pinned(OTHER),
        [
            ("error", "vector-weights", VECTOR.replace("L3", "L1"), "__metadata__.weights_sha256"),
            ("error", "vector-weights", VECTOR, "__metadata__.weights_sha256"),
        ],
    ),
    "vector of other weights than both": (
        lambda place: (pinned(HEX)(place), with_vector(weights_sha256=OTHER)(place)),
        [("error", "vector-weights", VECTOR, "__metadata__.weights_sha256")],
    ),
    "study of these weights": (pinned(HEX), []),
    "vector under a chat template": (
        with_vector(chat_template_sha256=OTHER),
        [("error", "vector-template", VECTOR, "__metadata__.chat_template_sha256")],
    ),
    "study with a chat template": (
        templated,
        [
            ("error", "vector-template", VECTOR.replace("L3", "L1"), "__metadata__.chat_template_sha256"),
            ("error", "vector-template", VECTOR, "__metadata__.chat_template_sha256"),
        ],
    ),
    "environment malformed": (
        of_file("environment.json", b"[]"),
        [("error", "environment", "persona-data/environment.json", "")],
    ),
    "environment of another kind": (
        of_file("environment.json", b'{"schema": "steer-eval/environment/1", "models": {"tiny": {}}}'),
        [("error", "environment", "persona-data/environment.json", "models.tiny")],
    ),
    "environment not UTF-8": (
        of_file("environment.json", b"\xff"),
        [("error", "environment", "persona-data/environment.json", "byte 0")],
    ),
    "counts of other sentences": (
        of_row(lambda value: value.update(sentence_tokens=[10, 8, 12, 6, 2, 2])),
        [("error", "sweep-arithmetic", SWEEP, f"line {LINE}: sentence_tokens")],
    ),
    "cell twice": (repeat_row, [("error", "sweep-duplicate", SWEEP, f"line {LAST}")]),
    "cell missing": (remove_row, [("error", "sweep-missing", SWEEP, "")]),
    "another prompt": (
        of_row(lambda value: value["generations"][1].update(prompt="Another.")),
        [("error", "sweep-prompt", SWEEP, f"line {LINE}: generations")],
    ),
    "prompt out of range": (
        of_row(lambda value: value["generations"].append({"prompt_idx": 3, "prompt": "x", "gen": "y"})),
        [
            ("error", "sweep-prompt", SWEEP, f"line {LINE}: generations"),
            ("error", "sweep-texts", SWEEP, f"line {LINE}: generations"),
        ],
    ),
    "text missing": (
        of_row(lambda value: value["generations"].pop()),
        [("error", "sweep-texts", SWEEP, f"line {LINE}: generations")],
    ),
    "text twice": (
        of_row(lambda value: value["generations"].__setitem__(1, value["generations"][0])),
        [("error", "sweep-texts", SWEEP, f"line {LINE}: generations")],
    ),
    "text of a collapsed cell": (
        of_row(
            lambda value: value["generations"].append(
                {"prompt_idx": 0, "prompt": "The lift is broken again.", "gen": "x"}
            ),
            LINE + 1,
        ),
        [("warning", "sweep-texts", SWEEP, f"line {LINE + 1}: generations")],
    ),
    "undecided collapse": (undecided, [("note", "collapse-undecided", SWEEP, f"line {LINE}")]),
    "undecided collapse without its mark": (
        undecided_without("collapse_undecided"),
        [("note", "collapse-undecided", SWEEP, f"line {LINE}")],
    ),
    "undecided collapse without its interval": (
        undecided_without("ppl_ratio_interval", "collapse_undecided"),
        [
            ("note", "collapse-undecided", SWEEP, f"line {LINE}"),
            ("warning", "sweep-sums-absent", SWEEP, f"line {LINE}"),
        ],
    ),
    "undecided collapse without its sums": (
        undecided_without("sentence_nll", "sentence_tokens"),
        [
            ("note", "collapse-undecided", SWEEP, f"line {LINE}"),
            ("warning", "sweep-sums-absent", SWEEP, f"line {LINE}"),
        ],
    ),
    "undecided collapse without any evidence": (
        undecided_without("ppl_ratio_interval", "collapse_undecided", "sentence_nll", "sentence_tokens"),
        [("warning", "sweep-sums-absent", SWEEP, f"line {LINE}")],
    ),
    "open collapse unmarked, without its interval": (
        lambda place: (
            undecided_without("ppl_ratio_interval")(place),
            of_row(lambda value: value.update(collapse_undecided=False))(place),
        ),
        [
            ("error", "sweep-arithmetic", SWEEP, f"line {LINE}: collapse_undecided"),
            ("note", "collapse-undecided", SWEEP, f"line {LINE}"),
            ("warning", "sweep-sums-absent", SWEEP, f"line {LINE}"),
        ],
    ),
    **{
        f"row without {field}": (
            of_row(lambda value, field=field: value.pop(field)),
            [("warning", "sweep-sums-absent", SWEEP, f"line {LINE}")],
        )
        for field in ("sentence_nll", "sentence_tokens", "ppl_ratio_interval")
    },
    # Who publishes no sums at all, or no zero control, is not asked for those of single rows.
    "sweep without sums": (of_every_row(lambda value: value.pop("sentence_nll")), []),
    "sweep without sums and intervals": (
        of_every_row(lambda value: [value.pop(field) for field in SUMS]),
        [],
    ),
    "sweep without a zero control": (
        lambda place: (of_row(lambda value: value.pop("sentence_nll"))(place), remove_row(place, 1)),
        [("error", "sweep-missing", SWEEP, "")],
    ),
    **{
        f"text {name}": (
            of_row(lambda value, lengths=lengths: value["generations"][1].update(lengths)),
            [("error", "sweep-text", SWEEP, f"line {LINE}: prompt 1")] if wrong else [],
        )
        for name, lengths, wrong in (
            ("above the limit", {"n_tokens": 81, "stop": "eos"}, True),
            ("far above the limit", {"n_tokens": 99, "stop": "length"}, True),
            ("cut before the limit", {"n_tokens": 79, "stop": "length"}, True),
            ("determined beyond its end", {"gen": "Ändert", "determined": 7}, True),
            ("at the limit", {"n_tokens": 80, "stop": "length"}, False),
            ("that ends at the limit", {"n_tokens": 80, "stop": "eos"}, False),
            ("determined to its end", {"gen": "Ändert", "determined": 6}, False),
        )
    },
    "sweep absent": (
        lambda place: (place.data / "sweep_tiny.jsonl").unlink(),
        [("error", "table", SWEEP, "")],
    ),
    "vector absent": (lambda place: (place.model / file_name("tiny", 3)).unlink(), [("error", "vector", VECTOR, "")]),
    "vector not finite": (
        with_vector(values=vector("tiny", 3).values * float("nan")),
        [("error", "not-finite", VECTOR, "vector[0]")],
    ),
    "vector of another norm": (
        with_vector(values=vector("tiny", 3).values * 2),
        [("error", "vector-norm", VECTOR, "__metadata__.norm")],
    ),
    "vector of another layer": (
        with_vector(layer="1"),
        [("error", "vector-layer", VECTOR, "__metadata__.layer")],
    ),
    "vector of another model": (
        with_vector(model="lab/other-base"),
        [("error", "vector-model", VECTOR, "__metadata__.model")],
    ),
    "vector of another width": (two_widths, [("error", "vector-shape", VECTOR, "vector")]),
    "claim of an unknown measure": (
        with_claims(claim("perplexity_ration", "2.4", layer=3, coef=2.0)),
        [("error", "claim-measure", STUDY, "claims[1].measure")],
    ),
    "claim of a cell that is not planned": (
        with_claims(claim("perplexity_ratio", "2.4", layer=17, coef=2.0)),
        [("error", "claim-select", STUDY, "claims[1].select")],
    ),
    "claim of several cells": (
        with_claims(claim("collapsed", True, layer=3)),
        [("error", "claim-select", STUDY, "claims[1].select")],
    ),
    "claim of a layer without a vector": (
        with_claims(claim("vector_norm", "5.8", layer=17)),
        [("error", "claim-select", STUDY, "claims[1].select")],
    ),
    "claim of text that is not generated": (
        with_claims(claim("identical_generations", "3", label="random", layer=3, coef=4.0)),
        [("error", "claim-select", STUDY, "claims[1].select")],
    ),
    "claim of a number that is a truth value": (
        with_claims(claim("collapsed", "1", layer=3, coef=4.0)),
        [("error", "claim-expected", STUDY, "claims[1].expected")],
    ),
    "claim of a truth value that is a number": (
        with_claims(claim("perplexity_ratio", True, layer=3, coef=2.0)),
        [("error", "claim-expected", STUDY, "claims[1].expected")],
    ),
    "claim with two mistakes": (
        with_claims(claim("collapsed", "1", layer=17, coef=4.0)),
        [
            ("error", "claim-select", STUDY, "claims[1].select"),
            ("error", "claim-expected", STUDY, "claims[1].expected"),
        ],
    ),
    "claims without a mistake": (
        with_claims(claim("collapsed", True, layer=3, coef=4.0), claim("vector_norm", "5.8", identity="b", layer=3)),
        [],
    ),
    "tolerance of an unknown measure": (
        with_tolerance("perplexity_rati"),
        [("error", "tolerance-measure", STUDY, "tolerances.perplexity_rati")],
    ),
    "environment absent": (
        lambda place: (place.data / "environment.json").unlink(),
        [("warning", "environment", "persona-data/environment.json", "")],
    ),
}
# The same for what is done to a study after its cards and manifests were written.
LATE_MISTAKES = {
    "card edited": (
        lambda place: (place.model / "README.md").open("a").write("typed\n"),
        {("error", "checksum", "persona/README.md"), ("error", "card-differs", "persona/README.md")},
    ),
    "card absent": (
        lambda place: (place.data / "README.md").unlink(),
        {("warning", "file-absent", "persona-data/README.md"), ("error", "card-absent", "persona-data/README.md")},
    ),
    "other file changed": (
        lambda place: (place.data / "environment.json").open("a").write("\n"),
        {("error", "checksum", "persona-data/environment.json")},
    ),
    "file added": (
        lambda place: (place.model / "notes.txt").write_text("x"),
        {("warning", "file-unlisted", "persona/notes.txt")},
    ),
    "manifest absent": (
        lambda place: (place.model / "manifest.json").unlink(),
        {("warning", "manifest-unusable", "persona/manifest.json")},
    ),
    "manifest bad": (
        lambda place: (place.data / "manifest.json").write_text("[]"),
        {("error", "manifest-unusable", "persona-data/manifest.json")},
    ),
}
