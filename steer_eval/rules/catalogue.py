"""The catalogue of rules: what a finding can be about, and how bad it is.

Invariant: every rule that a finding is made of stands here once per severity that it can have, and nothing else does.
docs/rules.md is generated from this table, and SARIF takes its descriptions from it, so a rule is described once.
"""

from __future__ import annotations

from dataclasses import dataclass

from steer_eval.findings import Severity


@dataclass(frozen=True)
class Rule:
    """A rule at one severity.

    Args:
        name: What a finding carries as its `rule`.
        severity: How bad such a finding is.
        summary: What is wrong, in one line of Markdown.
    """

    name: str
    severity: Severity
    summary: str


RULES: tuple[Rule, ...] = (
    Rule("claim-measure", "error", "a claim names a measure that there is not"),
    Rule(
        "claim-select",
        "error",
        "a claim's measure can't be taken on what it selects: no such layer or cell, or several",
    ),
    Rule(
        "claim-expected",
        "error",
        "a claim expects a number of a measure that gives a truth value, or the other way round",
    ),
    Rule("tolerance-measure", "error", "a tolerance is for a measure that there is not"),
    Rule("table", "error", "a table or the corpus is absent, is no strict JSON or UTF-8, or a row breaks its schema"),
    Rule(
        "prompt-leak", "error", "an evaluation prompt is, up to case and white space, a scenario of the contrast pairs"
    ),
    Rule("prompt-duplicate", "warning", "an evaluation prompt stands, up to case and white space, twice"),
    Rule("pair-duplicate", "warning", "a contrast pair stands, up to case and white space, twice"),
    Rule("pair-equal", "error", "the two replies of a contrast pair are the same text"),
    Rule("corpus-empty", "error", "the perplexity corpus has no text"),
    Rule("vector", "error", "a vector file is absent or is no finite float32 vector with its provenance"),
    Rule("vector-norm", "error", "the recorded norm is not the vector's, beyond the rounding of the stored dtype"),
    Rule(
        "vector-layer",
        "error",
        "the recorded layer is not the one in the file's name, or the base model has no such layer",
    ),
    Rule("vector-model", "error", "the vector was made on another model than the study names, or than its siblings"),
    Rule("vector-shape", "error", "a vector has another width than its siblings or than the base model"),
    Rule("vector-pairs", "error", "the vector was made from other contrast pairs than the published ones"),
    Rule(
        "vector-weights",
        "error",
        "the vector was made with other weights than `environment.json` or the study's pinned checksum says",
    ),
    Rule("vector-template", "error", "the vector was made under another chat template than the study's"),
    Rule(
        "sweep-arithmetic",
        "error",
        "a number of a row does not follow from the others, or its base perplexity from the zero control",
    ),
    Rule("sweep-anchor", "error", "the anchor's system prompt is not the study's, or another cell has one"),
    Rule("sweep-prompt", "error", "a generation's prompt is not the evaluation prompt of its number"),
    Rule("sweep-texts", "error", "a cell does not have one text per prompt"),
    Rule("sweep-texts", "warning", "a cell has texts that the plan does not ask for"),
    Rule("sweep-missing", "error", "a cell of the plan, or of the grid that a sweep spans, has no row"),
    Rule("sweep-duplicate", "error", "a cell has two rows"),
    Rule("sweep-unplanned", "warning", "a row is for a cell that the plan does not have"),
    Rule(
        "sweep-text",
        "error",
        "a text has more tokens than the study allows, ended at a length that is not the limit, or is determined "
        "beyond its end",
    ),
    Rule("sweep-sums-absent", "warning", "a row has no sentence sums or no interval, but the zero control has sums"),
    Rule(
        "collapse-undecided",
        "note",
        "the interval of a ratio, from the sentence sums where they are there, spans the collapse ratio",
    ),
    Rule(
        "comparison-edits",
        "error",
        "a row of a comparison does not say of its edits what the study and its published files give for the method",
    ),
    Rule(
        "comparison-unchecked",
        "warning",
        "edits in a comparison can't be taken again, as a file that the method needs is absent or bad",
    ),
    Rule("comparison-no-op", "error", "a patch with the prompt's own residuals changes a text or the perplexity"),
    Rule(
        "comparison-sweep",
        "error",
        "a cell has another perplexity or text in the comparison than in the sweep, where it is the same one",
    ),
    Rule("not-finite", "error", "a number of a file is NaN or infinite"),
    Rule("file-refused", "error", "a file is refused by the reader of its kind: damaged, too large, or more than data"),
    Rule(
        "vector-converted",
        "note",
        "a vector's file, or the one that it was converted from, does not say from which pairs it was made",
    ),
    Rule("sae-layer", "error", "an SAE or feature table has another layer than its name"),
    Rule("sae-shape", "error", "an SAE is not as wide as the vectors of its model"),
    Rule("sae-provenance", "error", "what an SAE has and records does not fit itself, or what the study plans"),
    Rule("sae-activity", "error", "the activity of an SAE's features does not fit the SAE, or itself"),
    Rule("sae-quality", "error", "a file of an SAE's quality does not say what the SAE records, or contradicts itself"),
    Rule("feature-arithmetic", "error", "a feature's delta, mean and frequency do not follow from each other"),
    Rule("feature-duplicate", "error", "a feature stands twice in its table"),
    Rule("feature-order", "error", "a feature table is not sorted by the size of its deltas, or of its effects"),
    Rule(
        "feature-statistics",
        "error",
        "a feature table's effects, intervals, token frequencies or counts do not follow from each other",
    ),
    Rule("feature-frequency", "warning", "a feature's frequency is no share of the prompts"),
    Rule(
        "feature-sae",
        "error",
        "a feature table does not fit the SAE of its name, or of its model and layer, the vector of its cell, or the "
        "study's plan",
    ),
    Rule("feature-model", "error", "a feature table is of another model than the vectors of its name"),
    Rule(
        "feature-coefficient",
        "warning",
        "features were measured at another coefficient than those of a sibling table, or than the card's result",
    ),
    Rule("feature-unlisted", "note", "no feature table lists the features that were steered"),
    Rule(
        "transfer-source",
        "error",
        "a native or source vector in a file of transferred ones equals no published one, or one of another layer",
    ),
    Rule(
        "transfer-map",
        "error",
        "a transfer map is not orthogonal on what its rows show, turns more than that, or does not give the "
        "transferred vectors",
    ),
    Rule("transfer-cosine", "error", "a recorded cosine is not that of the published vectors"),
    Rule("transfer-norm", "warning", "a transferred vector was measured at another norm than it is published with"),
    Rule(
        "transfer-diagnostics",
        "error",
        "diagnostics of a transfer do not fit its maps, its vectors or the study, or a value not its null and p-value",
    ),
    Rule(
        "transfer-licence",
        "warning",
        "maps or carried vectors are fitted on a model whose licence, as the study states it, is not known to be open",
    ),
    Rule("transfer-native", "error", "the native vector has another perplexity in its sweep"),
    Rule(
        "alignment-degenerate", "warning", "all fitted canonical correlations are 1, as fewer rows than dimensions give"
    ),
    Rule("sweep-base", "error", "a row has another unsteered perplexity than most rows of its sweep"),
    Rule("summary-differs", "error", "a summary of sweeps and vectors is not equal to them"),
    Rule("judge-margin", "error", "a margin is not the difference of its axes"),
    Rule("judge-duplicate", "error", "a cell or variant is judged twice in one file"),
    Rule("judge-unmatched", "error", "a score is for a cell or file that is not published"),
    Rule("judge-missing", "error", "a cell or variant with texts has no score, though most have one"),
    Rule("judge-collapsed", "error", "a row of scores and its sweep disagree on collapse"),
    Rule("judge-imputed", "warning", "rows have scores though there was no text to judge"),
    Rule("judge-label", "error", "a row of scores has a label that its source does not have"),
    Rule("judge-ratio", "error", "a row of scores has another perplexity ratio than what was judged"),
    Rule("evaluation-arithmetic", "error", "a number of a variant's row does not follow from the others"),
    Rule("evaluation-base", "error", "a variant's unsteered perplexity is that of no sweep and of no other variant"),
    Rule("evaluation-base", "warning", "the unsteered perplexity of several variants is that of no published sweep"),
    Rule(
        "evaluation-coefficient",
        "error",
        "a layer's coefficient is not alpha over the norm of its vector, or alpha is not what the others follow from",
    ),
    Rule("evaluation-duplicate", "error", "two variants have one label"),
    Rule("evaluation-prompt", "error", "a variant's prompt is none of the evaluation prompts"),
    Rule("texts-identical", "warning", "most texts of a variant are the same though their prompts differ"),
    Rule("collapse-unmarked", "note", "a variant's ratio lies above the collapse ratio and it has no such mark"),
    Rule("card-file-absent", "warning", "the card names a file that is absent"),
    Rule("card-file-absent", "note", "the card names a file by the path that it had before it was converted"),
    Rule("card-size", "warning", "a file has another size than the card says"),
    Rule("card-count", "warning", "a file has another number of rows, features or dimensions than the card says"),
    Rule("card-metadata", "error", "a card's front matter is no strict YAML"),
    Rule("card-metadata", "note", "a model card does not name its dataset repo"),
    Rule("best-cell-tie", "warning", "a cell that a text calls best has the highest margin together with others"),
    Rule("feature-ranking", "warning", "a text says that features are ranked by delta, and they are by its size"),
    Rule("study-absent", "warning", "a re-run was asked for, and the repo has no `study.yaml`"),
    Rule("convert-refused", "error", "a file can't be converted or copied without loss or risk"),
    Rule("convert-differs", "error", "a converted repo does not hold what its source holds"),
    Rule("convert-old-path", "note", "the card names a file that was converted"),
    Rule("values-not-read", "note", "a large file of a Hub repo was not fetched, so that only its header was checked"),
    Rule("card-absent", "warning", "a repo without a study has no card"),
    Rule("data-absent", "note", "a model repo without a study was checked without its dataset repo"),
    Rule("repo-empty", "error", "a repo has no files, so that nothing was checked"),
    Rule("environment", "error", "`environment.json` breaks its schema"),
    Rule("environment", "warning", "`environment.json` is absent"),
    Rule("card-absent", "error", "a card or figure is absent"),
    Rule("card-differs", "error", "a line of a card or figure is not what the data gives"),
    Rule("symlink", "error", "a symbolic link leads out of the repo; what it leads to is never read"),
    Rule("checksum", "error", "a file is not the one that `manifest.json` was written for"),
    Rule("manifest-size", "error", "`manifest.json` gives a file another size than it has"),
    Rule("manifest-duplicate", "error", "`manifest.json` names a path twice"),
    Rule("manifest-unusable", "error", "`manifest.json` breaks its schema"),
    Rule("manifest-unusable", "warning", "`manifest.json` is absent"),
    Rule("file-absent", "warning", "`manifest.json` names a file that is absent"),
    Rule("file-unlisted", "warning", "`manifest.json` does not name a file; hidden files need not be named"),
    Rule("publish-secret", "error", "a file to be published holds a token, a password or a key, or is one that does"),
    Rule("publish-home-path", "error", "a file to be published names somebody's home folder"),
    Rule("publish-unknown", "error", "a file to be published is of no kind that a study has"),
    Rule("publish-large", "error", "a file to be published is larger than files of its kind are"),
    Rule("publish-left-out", "warning", "a cache, a backup or a file that was converted before is not published"),
    Rule("publish-left-out", "note", "a file that is for tools on this disk is not published"),
    Rule("publish-card", "warning", "a card that was written by hand is not the one that is published"),
    Rule("publish-visibility", "error", "`publish --private` was asked for, and the repo is there and public"),
    Rule("publish-tag", "error", "the tag that `publish` was asked for is there, on another commit"),
    Rule(
        "publish-behind", "error", "somebody pushed to the model repo since the published folder was pulled from there"
    ),
    Rule(
        "publish-behind",
        "warning",
        "somebody pushed since the published folder was pulled, to the dataset repo, or before a pull request",
    ),
    Rule(
        "publish-local-model", "warning", "a published study runs on a model that is a folder of its author's machine"
    ),
    Rule("publish-pin", "error", "a published model repo does not pin the dataset repo that it was published with"),
    Rule("model-left-out", "warning", "a model was not run: it needs more memory or time than there is"),
    Rule("model-not-run", "error", "`reproduce` could not run a model"),
    Rule("method-not-run", "error", "`reproduce` could not run a method of a comparison, which lacks a file"),
)


def rows_by_name() -> dict[str, tuple[Rule, ...]]:
    """The rows of each rule, in the order of the catalogue."""
    grouped: dict[str, list[Rule]] = {}
    for rule in RULES:
        grouped.setdefault(rule.name, []).append(rule)
    return {name: tuple(rows) for name, rows in grouped.items()}
