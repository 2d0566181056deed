"""For the schemas of results that commands print or leave behind: one example each, and changes that break it."""

from __future__ import annotations

from typing import Any

ABSENT = object()
"""In a counter-example: the field is left out."""
HEX = "0" * 64
COMMIT = "a" * 40
FINDING = {
    "rule": "file-absent",
    "severity": "warning",
    "file": "README.md",
    "where": "",
    "expected": None,
    "observed": None,
    "message": "m",
    "fix": "",
}
ESTIMATE = {"value": 0.5, "stderr": None}
COMPARISON_ROW = {
    "variant": "anchor+addition",
    "label": "steered",
    "layer": 2,
    "coef": 1.0,
    "edits": [
        {"kind": "add", "layer": 2, "coefficient": 1.0, "positions": "all", "norm": 4.0, "vector_sha256": HEX},
        {"kind": "clamp", "layer": 2, "positions": "all", "features": [3, 1], "values": [0.0, 7.5], "sae_sha256": HEX},
        {"kind": "patch", "layer": 2, "positions": "prompt", "source": "anchor"},
    ],
    "base_ppl": 26.0,
    "ppl": 39.0,
    "ppl_ratio": 1.5,
    "collapsed": False,
    "system_prompt": "Be firm.",
    "sentence_nll": [70.5],
    "sentence_tokens": [19],
    "corpus_after": 0,
    "base_sentence_nll": [60.5],
    "generations": [{"prompt_idx": 0, "prompt": "p", "gen": "g"}],
}
CAPABILITY = {
    "schema": "steer-eval/capability/1",
    "target": "lab/persona",
    "study": "persona",
    "model": {
        "name": "tiny",
        "base_model": "lab/tiny-base",
        "revision": "local",
        "weights_sha256": HEX,
        "dtype": "float32",
    },
    "environment": {"machine_class": "cpu", "versions": {}},
    "lm_eval": "0.4.13",
    "settings": {"tasks": ["t"], "limit": None, "batch_size": 1, "chat": False},
    "conditions": [
        {"label": "base", "layer": None, "coef": 0.0, "file": None, "edits": []},
        {
            "label": "steered",
            "layer": 2,
            "coef": 1.0,
            "file": "v.safetensors",
            "edits": [{"layer": 2, "coef": 1.0, "vector_sha256": HEX}],
        },
    ],
    "recalled": 0,
    "results": [
        {
            "task": "t",
            "group": False,
            "version": None,
            "num_fewshot": 0,
            "metric": "acc",
            "filter": "none",
            "higher_is_better": True,
            "documents": 4,
            "documents_of": 4,
            "base": ESTIMATE,
            "steered": [
                {
                    "label": "steered",
                    "layer": 2,
                    "coef": 1.0,
                    "value": 0.25,
                    "stderr": 0.1,
                    "difference": ESTIMATE,
                    "ratio": {"value": 0.5, "low": 0.1, "high": 2.0},
                    "documents": 4,
                }
            ],
        }
    ],
}
PLACE = {"repo": "lab/persona", "revision": COMMIT, "data": {"repo": "lab/persona-data", "revision": None}}
DIFF = {
    "schema": "steer-eval/diff/1",
    "old": PLACE,
    "new": {"repo": "folder", "revision": None, "data": None},
    "same": False,
    "artifacts": [
        {
            "change": "changed",
            "repo": "model",
            "path": {"old": "vectors/v.pt", "new": "vectors/v.safetensors"},
            "kind": "vector",
            "size": {"old": 1, "new": 2},
            "tensors": [
                {
                    "change": "changed",
                    "name": "vector",
                    "shape": {"old": [4], "new": [4]},
                    "cosine": 0.9,
                    "norm_ratio": None,
                    "max_difference": 0.1,
                }
            ],
            "rows": [
                {
                    "change": "added",
                    "key": {"layer": 2},
                    "line": {"new": 3},
                    "fields": [{"field": "ppl", "old": 1.0, "new": 2.0}],
                }
            ],
            "fields": [{"field": "layer", "new": 3}],
            "troubles": [],
        }
    ],
    "unchanged": 3,
    "numbers": [
        {"change": "changed", "repo": "model", "line": {"old": 3, "new": 4}, "text": "t", "old": "1", "new": "2"}
    ],
    "claims": [
        {
            "change": "changed",
            "claim": "c",
            "words": {"new": "w"},
            "expected": {"new": "1"},
            "verdict": {"new": "reproduced"},
            "observed": {"new": 1.0},
        }
    ],
}
JOB = {
    "schema": "steer-eval/job/1",
    "namespace": "lab",
    "payload": {
        "command": ["uv", "run", "-"],
        "arguments": [],
        "environment": {"A": "b"},
        "flavor": "cpu-basic",
        "secrets": {"HF_TOKEN": "***"},
        "timeoutSeconds": 60,
        "labels": {},
        "dockerImage": "python",
    },
    "script": "print()",
    "settings": {
        "study": "lab/persona",
        "name": "persona",
        "arguments": [],
        "weights": [{"model": "tiny", "id": "lab/tiny-base", "revision": "main", "commit": COMMIT}],
        "packages": ["steer-eval==1"],
        "results": {"repo": "lab/results", "private": False},
    },
    "submitted": {
        "id": "1",
        "namespace": "lab",
        "url": "u",
        "stage": "COMPLETED",
        "message": None,
        "pull_request": None,
        "exit_code": 0,
    },
}
JUDGEMENT = {
    "role": "cell",
    "label": "steered",
    "layer": 2,
    "coef": 1.0,
    "prompts": [0],
    "repeat": 0,
    "axes": ["calm"],
    "status": "scored",
    "scores": {"calm": 3.5},
    "raw": "{}",
    "attempts": 1,
    "calls": [HEX],
    "judge": "api",
    "protocol": "sample",
    "rubric": "calm",
    "rubric_sha256": HEX,
}
JUDGING = {
    "schema": "steer-eval/judging/1",
    "target": "lab/persona",
    "folder": None,
    "rubric": {"name": "calm", "sha256": HEX, "axes": ["calm"], "levels": [1.0, 5.0], "margin": "calm"},
    "judges": [
        {
            "name": "api",
            "identity": {"kind": "api"},
            "protocol": "sample",
            "cells": {"scored": 1, "unscored": 0},
            "scores": [
                {
                    "model": "tiny",
                    "label": "steered",
                    "layer": 2,
                    "coef": 1.0,
                    "scores": {},
                    "margin": 1.0,
                    "asked": 1,
                    "scored": 1,
                    "unscored": 0,
                }
            ],
            "retest": {},
            "canaries": {},
            "best": {},
            "files": [],
        }
    ],
    "recorded": [{"name": "judge", "model": "tiny", "file": "judge_tiny.jsonl", "cells": 3, "imputed": 0}],
    "agreement": [
        {
            "first": "api",
            "second": "judge",
            "protocols": ["sample", "paper-cell"],
            "axes": [
                {
                    "axis": "calm",
                    "n": 3,
                    "kappa": None,
                    "alpha": 0.1,
                    "spearman": 0.2,
                    "exact": 0.3,
                    "within_half": 0.4,
                    "mean_difference": -0.5,
                }
            ],
        }
    ],
    "judge_drift": [{"judge": "api", "published": "judge", "model": "tiny", "axes": []}],
    "generation_drift": [{"judge": "api", "axes": [], "cells": []}],
    "cost": {"calls": 1, "from_log": 0, "tokens_in": 2, "tokens_out": 3, "cost": None, "retries": 0},
}
PUBLISH = {
    "schema": "steer-eval/publish/1",
    "outcome": "published",
    "target": "persona",
    "findings": [FINDING],
    "repos": [
        {
            "repo": "lab/persona",
            "kind": "model",
            "new": True,
            "private": False,
            "head": None,
            "changes": [{"path": "README.md", "action": "added", "size": 3, "was": None}],
            "commit": COMMIT,
            "pull_request": None,
            "tag": None,
        }
    ],
    "collection": None,
    "verification": {"files": 1, "findings": []},
}
PULL = {
    "schema": "steer-eval/pull/1",
    "repos": [
        {
            "repo": "lab/persona",
            "kind": "model",
            "revision": COMMIT,
            "folder": "persona",
            "written": ["README.md"],
            "removed": [],
            "kept": [],
            "unchanged": 0,
        }
    ],
}
RUBRIC = {
    "schema": "steer-eval/rubric/1",
    "name": "calm",
    "title": "Calm",
    "scale": {"low": 1, "high": 5, "step": 0.5},
    "axes": {
        "calm": {"question": "How calm?", "levels": [{"score": 1, "text": "storm"}, {"score": 5, "text": "lake"}]}
    },
}
QUALITY = {
    "held_out_fvu": 0.2,
    "held_out_l0": 32.0,
    "held_out_tokens": 100,
    "sinks_left_out": 1,
    "cross_entropy": 3.0,
    "cross_entropy_sae": 3.1,
    "cross_entropy_mean_ablation": 9.0,
    "cross_entropy_tokens": 90,
    "excess_cross_entropy": 0.1,
    "dead_share": 0.0,
    "training_tokens": 900,
}

EXAMPLES: dict[str, Any] = {
    "activations": {
        "schema": "steer-eval/activations/1",
        "key": {"layer": 2, "weights_sha256": HEX},
        "shards": [{"file": "train-00000.safetensors", "split": "train", "rows": 5}],
    },
    "capability": CAPABILITY,
    "comparison_row": COMPARISON_ROW,
    "diff": DIFF,
    "feature_activity": {
        "__metadata__": {"format": "steer-eval/feature-activity/1", "tokens": "3200"},
        "maximum": {"dtype": "F32", "shape": [12], "data_offsets": [0, 48]},
        "frequency": {"dtype": "F32", "shape": [12], "data_offsets": [48, 96]},
    },
    "job": JOB,
    "judge_comparison_row": {
        "variant": "rotation",
        "label": "random",
        "layer": 6,
        "coef": -2.0,
        "mature_anger": 4.5,
        "juvenile_rage": 1.0,
        "coherence": 5.0,
    },
    "judgement": JUDGEMENT,
    "judging": JUDGING,
    "probe_text": {"text": "t"},
    "publish": PUBLISH,
    "pull": PULL,
    "pulled": {
        "schema": "steer-eval/pulled/1",
        "repo": "lab/persona",
        "kind": "model",
        "revision": COMMIT,
        "files": {"README.md": HEX},
    },
    "rubric": RUBRIC,
    "sae_quality": QUALITY,
    "sae_training_row": {
        "step": 1,
        "batch_fvu": 0.5,
        "held_out_fvu": 0.6,
        "held_out_l0": 32.0,
        "lately_dead_share": 0.0,
    },
    "task_choice": {"id": "one", "topic": "t", "question": "q", "choices": ["a", "b", "c", "d"], "answer": 3},
    "task_instruction": {"id": "one", "instruction": "i", "checks": [{"kind": "words", "value": 3}]},
}

COUNTER_EXAMPLES: dict[str, list[tuple[list[Any], Any, str]]] = {
    "feature_activity": [
        (["__metadata__", "format"], "steer-eval/feature-activity/2", "format"),
        (["__metadata__", "tokens"], "0", "tokens"),
        (["maximum", "dtype"], "F64", "maximum.dtype"),
        (["frequency", "shape"], [3, 4], "frequency.shape"),
        (["mean"], {}, "mean"),
    ],
    "judge_comparison_row": [
        (["variant"], ABSENT, "variant"),
        (["variant"], "", "variant"),
        (["label"], ABSENT, "label"),
        (["label"], "method", "label"),
        (["layer"], "18", "layer"),
        (["coherence"], 5.5, "coherence"),
    ],
    "activations": [
        (["key", "layer"], -1, "key.layer"),
        (["shards", 0, "file"], "../x.safetensors", "shards[0].file"),
        (["shards", 0, "rows"], 0, "shards[0].rows"),
    ],
    "capability": [
        (["model", "weights_sha256"], "abc", "model.weights_sha256"),
        (["conditions", 0, "label"], "anchor", "conditions[0].label"),
        (["conditions"], [], "conditions"),
        (["results", 0, "base", "stderr"], -1, "results[0].base.stderr"),
        (["results", 0, "steered", 0, "difference"], ABSENT, "difference"),
    ],
    "comparison_row": [
        (["variant"], ABSENT, "variant"),
        (["variant"], "A b", "variant"),
        (["label"], "anchor", "label"),
        (["ppl"], 0, "ppl"),
        (["edits", 0, "kind"], "push", "edits[0]"),
        (["edits", 0, "norm"], ABSENT, "edits[0]"),
        (["edits", 0, "layer"], -1, "edits[0].layer"),
        (["edits", 1, "values"], [], "edits[1]"),
        (["edits", 2, "positions"], "all", "edits[2]"),
        (["edits", 2, "source"], "dream", "edits[2]"),
        (["corpus_after"], ABSENT, "corpus_after"),
        (["base_sentence_nll"], ABSENT, "base_sentence_nll"),
    ],
    "diff": [
        (["artifacts", 0, "change"], "moved", "artifacts[0].change"),
        (["artifacts", 0, "path"], {}, "artifacts[0].path"),
        (["old", "revision"], 3, "old.revision"),
        (["claims", 0, "verdict"], "reproduced", "claims[0].verdict"),
    ],
    "job": [
        (["payload", "secrets", "HF_TOKEN"], "hf_abc", "payload.secrets.HF_TOKEN"),
        (["payload", "timeoutSeconds"], 0, "payload.timeoutSeconds"),
        (["settings", "weights", 0, "commit"], ABSENT, "commit"),
    ],
    "judgement": [
        (["scores"], {}, "scores"),
        (["scores", "calm"], "5", "scores.calm"),
        (["reason"], "empty", "reason"),
        (["calls", 0], "abc", "calls[0]"),
        (["protocol"], "both", "protocol"),
    ],
    "judging": [
        (["judges", 0, "protocol"], "both", "judges[0].protocol"),
        (["agreement", 0, "protocols"], ["sample"], "agreement[0].protocols"),
        (["cost", "calls"], -1, "cost.calls"),
    ],
    "probe_text": [(["text"], "", "text"), (["label"], 1, "label")],
    "publish": [
        (["outcome"], "perhaps", "outcome"),
        (["repos", 0, "commit"], "main", "repos[0].commit"),
        (["repos", 0, "changes", 0, "action"], "moved", "repos[0].changes[0].action"),
        (["findings", 0, "severity"], "fatal", "findings[0].severity"),
    ],
    "pull": [(["repos"], [], "repos"), (["repos", 0, "kind"], "space", "repos[0].kind")],
    "pulled": [(["files", "README.md"], "abc", "files.README.md"), (["kind"], "space", "kind")],
    "rubric": [
        (["name"], "A b", "name"),
        (["scale", "step"], 0, "scale.step"),
        (["axes"], {}, "axes"),
        (["axes", "calm", "levels"], [], "axes.calm.levels"),
    ],
    "sae_quality": [
        (["held_out_fvu"], -0.1, "held_out_fvu"),
        (["dead_share"], 1.5, "dead_share"),
        (["training_tokens"], 0, "training_tokens"),
    ],
    "sae_training_row": [(["step"], 0, "step"), (["dead_share"], 2, "dead_share")],
    "task_choice": [
        (["answer"], 4, "answer"),
        (["choices"], ["a", "b", "c"], "choices"),
        (["choices"], ["a", "a", "b", "c"], "choices"),
    ],
    "task_instruction": [(["checks"], [], "checks"), (["id"], "A b", "id")],
}
