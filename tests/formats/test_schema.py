"""Every schema has an example that it accepts and counter-examples that it must reject, by name of the field."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
import schema_examples
from jsonschema import Draft202012Validator
from pt_files import caa, described, features, sae, transfer_map, transferred
from studies import HEX, build, claim, document, environment, provenance

from steer_eval.errors import FormatError
from steer_eval.formats import schema
from steer_eval.resources import folder

FINDING = {
    "rule": "card-differs",
    "severity": "error",
    "file": "README.md",
    "where": "line 3",
    "expected": 1.5,
    "observed": None,
    "message": "differs",
    "fix": "",
}
CHECK = {
    "evidence": "published data",
    "observed": 1.5,
    "tolerance": "±0.005",
    "verdict": "reproduced",
    "reason": "",
    "file": "sweep_tiny.jsonl",
    "where": "line 1",
}
VERDICT = {
    "id": "one",
    "claim": "a claim",
    "source": {"file": "study.yaml", "line": None},
    "measure": "perplexity",
    "expected": "1.50",
    "verdict": "reproduced",
    "checks": [CHECK],
}
SWEEP_ROW = {
    "layer": 6,
    "coef": -2.0,
    "base_ppl": 29.0,
    "ppl": 39.0,
    "ppl_ratio": 1.35,
    "collapsed": False,
    "generations": [{"prompt_idx": 0, "prompt": "p", "gen": "g"}],
}
PPL = {"ppl": 183.4, "ppl_ratio": 9.7, "collapsed": True}
SCORES = {"mature_anger": 4.5, "juvenile_rage": 2, "coherence": 5.0, "margin": 2.5, "notes": "n"}
SAID = [{"prompt_idx": 0, "prompt": "p", "gen": "g"}, {"prompt": "p", "gen": None}]
ANSWER = {"layer": None, "coef": 0.0, "gen": "g", "n_tokens": 3, "stop": "eos", "determined": None}
GENERATION = {
    "schema": "steer-eval/generate/1",
    "target": "lab/persona",
    "model": {"name": "lab/tiny", "revision": "main", "weights_sha256": HEX, "dtype": "float32", "device": "cpu"},
    "vectors": [{"layer": 1, "file": "v.safetensors", "norm": 5.0, "sha256": HEX, "model": None, "same_weights": None}],
    "system": None,
    "max_new_tokens": 40,
    "prompts": [{"prompt": "p", "answers": [ANSWER, {**ANSWER, "layer": 1, "coef": 2.0, "determined": 4}]}],
}
SAELENS_CFG = {
    "architecture": "topk",
    "d_in": 4,
    "d_sae": 12,
    "k": 3,
    "dtype": "float32",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "rescale_acts_by_decoder_norm": False,
    "metadata": {
        "sae_lens_version": "6.0.0",
        "model_name": "lab/tiny-base",
        "hook_name": "blocks.1.hook_resid_post",
        "steer_eval": {"steps": "4000"},
    },
}
WEIGHTS = {
    "W_enc": {"dtype": "F32", "shape": [4, 12], "data_offsets": [0, 192]},
    "b_enc": {"dtype": "F16", "shape": [12], "data_offsets": [192, 216]},
    "W_dec": {"dtype": "BF16", "shape": [12, 4], "data_offsets": [216, 312]},
    "b_dec": {"dtype": "F32", "shape": [4], "data_offsets": [312, 328]},
}
SIZES = {
    "large": {
        "per_layer": {"6": {"-2.0": {"ppl": 25.0, "ppl_ratio": 1.3, "collapsed": False}, "10": {**PPL}}},
        "vectors": {"6": {"norm": 0.8, "shape": [2048]}},
    }
}
CONVERTED = {"source_file": "x.pt", "source_sha256": HEX, "dtype": "float32"}
LEVEL = {"requested": "rerun", "reached": "recompute"}

TRANSFER_END = {
    "model": "tiny",
    "base_model": "lab/tiny-base",
    "weights_sha256": HEX,
    "layer": 14,
    "hidden_size": 48,
    "split_half_cosine": 0.9,
}
TESTED = {"value": -3175.3, "null_95": 0.1, "p": 0.024, "draws": 40}
TRANSFER_MEASURED = {
    "settings": {"alpha": 1.0},
    "fitted_r2": 1.0,
    "held_out_r2": TESTED,
    "cosine_to_native": TESTED,
    "retrieval": {"chance": 0.2, **TESTED},
    "carried_norm_share": 0.3,
}
SAE_QUALITY = {
    "held_out_fvu": 0.2,
    "held_out_l0": 32.0,
    "held_out_tokens": 4000,
    "sinks_left_out": 32,
    "cross_entropy": 3.5,
    "cross_entropy_sae": 3.75,
    "excess_cross_entropy": 0.25,
    "cross_entropy_mean_ablation": 9.0,
    "cross_entropy_tokens": 3968,
    "dead_share": 0.0,
    "training_tokens": 40000,
}
EXAMPLES: dict[str, Any] = {
    "activations": {
        "schema": "steer-eval/activations/1",
        "key": {"layer": 3},
        "shards": [{"file": "train-00000.safetensors", "split": "train", "rows": 5}],
    },
    "sae_quality": SAE_QUALITY,
    "sae_training_row": {
        "step": 100,
        "batch_fvu": 0.3,
        "held_out_fvu": 0.4,
        "held_out_l0": 32.0,
        "dead_share": 0.1,
    },
    "audit": {
        "schema": "steer-eval/audit/1",
        "file": "README.md",
        "data": "lab/persona-data",
        "names": {"tiny": "lab/tiny-base"},
        "coverage": {"understood": 1, "numbers": 2},
        "findings": [FINDING],
        "verdicts": [VERDICT],
    },
    "caa_pt": described(caa()),
    "contrast_pair": {"scenario": "s", "angry": "a", "calm": "c"},
    "environment": {"schema": "steer-eval/environment/1", "models": {"tiny": environment()}},
    "eval_prompt": {"scenario": "s", "category": "c"},
    "features": features(),
    "finding": FINDING,
    "generation": GENERATION,
    "judge_label_row": {"label": "native", "source": "transfer_eval.jsonl", "ppl_ratio": None, **SCORES},
    "judge_row": {"layer": 6, "coef": -2.0, "collapsed": False, **SCORES},
    "latent_diff": {
        "ridge_heldout_r2": -0.2,
        "cca_fit_corrs": [1.0, 0.9999999999999999, None],
        "cca_heldout_corrs": [0.9],
        "cos_ridge_native": 0.3,
        "cos_proc_native": -0.1,
        "cos_ridge_proc": 1.0000001,
        "feat_4617_ridge_norm": 0.05,
    },
    "manifest": {
        "schema": "steer-eval/manifest/1",
        "files": [{"path": "README.md", "sha256": HEX, "size": 0, "kind": "card"}],
    },
    "phase_i_row": {
        "label": "multi_layer_a0.50",
        "alpha": 0.5,
        "per_layer_coefs": {"6": 1.3, "22": -0.2},
        "ppl": 54.9,
        "ppl_ratio": None,
        "base_ppl": 29.0,
        "collapsed": False,
        "generations": SAID,
    },
    "report": {
        "schema": "steer-eval/report/1",
        "repo": "lab/persona",
        "data": None,
        "revision": None,
        "level": LEVEL,
        "findings": [FINDING],
        "verdicts": [VERDICT],
        "run": {"folder": "runs/x", "environment": None, "recorded_environment": None, "same_machine_class": None},
    },
    "sae_pt": described(sae()),
    "saelens_cfg": SAELENS_CFG,
    "saelens_weights": WEIGHTS,
    "size_comparison": SIZES,
    "study": document(claims=[claim("perplexity", "1.50", model="tiny", layer=1, coef=2)]),
    "sweep_row": SWEEP_ROW,
    "transfer_diagnostics": {
        "schema": "steer-eval/transfer-diagnostics/1",
        "source": TRANSFER_END,
        "target": {**TRANSFER_END, "layer": 12, "split_half_cosine": None},
        "plan": {"words": 100},
        "text_sha256": HEX,
        "pairs": {"n": 5, "sha256": HEX},
        "protocols": {
            "plain": {
                "settings": {"rows": "chats", "alphas": [1.0], "centred": False, "texts": 30},
                "n_rows": 30,
                "n_texts": 30,
                "debiased_cka": TESTED,
                "svcca": {"rank": 7, **TESTED},
                "maps": dict.fromkeys(("ridge", "procrustes", "random"), TRANSFER_MEASURED),
            }
        },
    },
    "transfer_map": {
        "__metadata__": {
            "format": "steer-eval/transfer-map/1",
            "L_large": "14",
            "L_small": "12",
            "alpha": "100.0",
            "source_format": "transfer-map-pt",
            **CONVERTED,
        },
        "W": {"dtype": "F32", "shape": [6, 4], "data_offsets": [0, 96]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [96, 112]},
        "R": {"dtype": "F32", "shape": [4, 6], "data_offsets": [112, 208]},
    },
    "transfer_map_pt": described(transfer_map()),
    "neutral_sentence": {"sentence": "Bread dough rises faster in a warm room.", "topic": "kitchen"},
    "transfer_row": {
        "label": "native",
        "ppl": 32.7,
        "ppl_ratio": 1.1,
        "base_ppl": 29.0,
        "norm": 0,
        "generations": SAID,
    },
    "transferred": {
        "__metadata__": {
            "format": "steer-eval/transferred/1",
            "L_small": "14",
            "c_small": "-1.5e-05",
            "source_format": "transferred-pt",
            **CONVERTED,
        },
        **{
            f"v_{name}": {"dtype": "F32", "shape": [6], "data_offsets": [24 * index, 24 * index + 24]}
            for index, name in enumerate(("ridge", "procrustes", "random", "small_native", "large_source"))
        },
    },
    "transferred_pt": described(transferred()),
    "validation": {"schema": "steer-eval/validate/1", "target": "x", "findings": [FINDING], "checked": ["README.md"]},
    "vector": {
        "__metadata__": provenance("tiny", 1, 5.0),
        "vector": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    },
    "verdict": VERDICT,
}

ABSENT = schema_examples.ABSENT
# For each schema: the place that is changed, its new value, and what the message must name.
COUNTER_EXAMPLES: dict[str, list[tuple[list[Any], Any, str]]] = {
    "activations": [
        (["key", "layer"], ABSENT, "layer"),
        (["shards", 0, "file"], "../train-00000.safetensors", "shards[0].file"),
        (["shards", 0, "rows"], 0, "shards[0].rows"),
        (["shards", 0, "split"], "test", "shards[0].split"),
    ],
    "sae_quality": [
        (["dead_share"], 1.5, "dead_share"),
        (["held_out_fvu"], ABSENT, "held_out_fvu"),
        (["held_out_tokens"], 0, "held_out_tokens"),
    ],
    "sae_training_row": [
        (["step"], 0, "step"),
        (["held_out_fvu"], ABSENT, "held_out_fvu"),
        (["quality"], {}, "quality"),
    ],
    "audit": [
        (["schema"], "steer-eval/audit/2", "schema"),
        (["names", "tiny"], None, "names.tiny"),
        (["coverage", "numbers"], -1, "coverage.numbers"),
        (["coverage", "understood"], ABSENT, "understood"),
        (["verdicts", 0, "verdict"], "fine", "verdicts[0].verdict"),
        (["findings", 0, "severity"], "fatal", "findings[0].severity"),
        (["extra"], None, "extra"),
    ],
    "caa_pt": [
        (["vector", "dtype"], "float64", "vector.dtype"),
        (["vector", "shape"], [2, 4], "vector.shape"),
        (["vector", "shape"], [0], "vector.shape[0]"),
        (["vector"], 1.5, "vector"),
        (["norm"], -1.0, "norm"),
        (["norm"], {"dtype": "float32", "shape": []}, "norm"),
        (["layer"], 14.0, "layer"),
        (["layer"], 10_000, "layer"),
        (["model"], "", "model"),
        (["n_pairs"], 0, "n_pairs"),
    ],
    "contrast_pair": [
        (["scenario"], ABSENT, "scenario"),
        (["calm"], "", "calm"),
        (["calm"], ["c"], "calm"),
        (["angry"], ABSENT, "enough properties"),
    ],
    "environment": [
        (["models", "tiny", "threads"], "two", "models.tiny.threads"),
        (["models", "tiny", "machine_class"], ABSENT, "machine_class"),
        (["schema"], "steer-eval/environment/2", "schema"),
        (["models", "tiny", "versions", "torch"], 2.13, "models.tiny.versions.torch"),
    ],
    "eval_prompt": [(["scenario"], ABSENT, "scenario"), (["scenario"], "", "scenario"), (["more"], None, "more")],
    "features": [
        (["layer"], True, "layer"),
        (["coef"], None, "coef"),
        (["n_prompts"], 0, "n_prompts"),
        (["top_features"], [], "top_features"),
        (["top_features", 1, "feature_id"], -1, "top_features[1].feature_id"),
        (["top_features", 1, "steered_mean"], -0.5, "top_features[1].steered_mean"),
        (["top_features", 1, "base_freq"], 1.5, "top_features[1].base_freq"),
        (["top_features", 2, "delta"], ABSENT, "delta"),
        (["top_features", 0, "delta_interval"], [1.0], "top_features[0].delta_interval"),
        (["top_features", 0, "delta_q"], 1.5, "top_features[0].delta_q"),
        (["format"], "steer-eval/features/1", "n_tokens"),
    ],
    "finding": [
        (["severity"], "fatal", "severity"),
        (["rule"], "Card Differs", "rule"),
        (["fix"], ABSENT, "fix"),
        (["line"], 3, "line"),
    ],
    "generation": [
        (["schema"], "steer-eval/generate/2", "schema"),
        (["model", "weights_sha256"], "abc", "model.weights_sha256"),
        (["vectors"], [], "vectors"),
        (["vectors", 0, "same_weights"], "yes", "vectors[0].same_weights"),
        (["vectors", 0, "layer"], None, "vectors[0].layer"),
        (["max_new_tokens"], 0, "max_new_tokens"),
        (["prompts", 0, "prompt"], "", "prompts[0].prompt"),
        (["prompts", 0, "answers"], [], "prompts[0].answers"),
        (["prompts", 0, "answers", 1, "stop"], "bored", "prompts[0].answers[1].stop"),
        (["prompts", 0, "answers", 1, "gen"], None, "prompts[0].answers[1].gen"),
        (["seed"], 1, "seed"),
    ],
    "judge_label_row": [
        (["label"], "", "label"),
        (["source"], 3, "source"),
        (["ppl_ratio"], 0, "ppl_ratio"),
        (["coherence"], 5.5, "coherence"),
        (["mature_anger"], 1.25, "mature_anger"),
        (["margin"], "2.5", "margin"),
    ],
    "judge_row": [
        (["layer"], -1, "layer"),
        (["layer"], 6.0, "layer"),
        (["coef"], "2", "coef"),
        (["mature_anger"], 0.5, "mature_anger"),
        (["juvenile_rage"], 3.3, "juvenile_rage"),
        (["coherence"], None, "coherence"),
        (["collapsed"], "no", "collapsed"),
        (["notes"], ["n"], "notes"),
    ],
    "latent_diff": [
        (["ridge_heldout_r2"], 1.5, "ridge_heldout_r2"),
        (["cca_fit_corrs"], [1.0, 1.1], "cca_fit_corrs[1]"),
        (["cca_heldout_corrs"], 0.9, "cca_heldout_corrs"),
        (["cos_proc_native"], -1.1, "cos_proc_native"),
        (["cos_ridge_native"], None, "cos_ridge_native"),
        (["feat_4617_ridge_norm"], -0.1, "feat_4617_ridge_norm"),
        (["feat_1_proc_norm"], "0.1", "feat_1_proc_norm"),
    ],
    "manifest": [
        (["files", 0, "sha256"], "abc", "files[0].sha256"),
        (["files", 0, "size"], -1, "files[0].size"),
        (["files", 0, "size"], 1.0, "files[0].size"),
        (["files", 0, "path"], "../x", "files[0].path"),
        (["files", 0, "kind"], "song", "files[0].kind"),
    ],
    "phase_i_row": [
        (["per_layer_coefs"], {"six": 1.0}, "per_layer_coefs"),
        (["per_layer_coefs"], {}, "per_layer_coefs"),
        (["per_layer_coefs", "6"], "1.0", "per_layer_coefs.6"),
        (["per_layer_coefs"], ABSENT, "is not valid under any of the given schemas"),
        (["feat_ids"], [], "feat_ids"),
        (["feat_ids"], [1.0], "feat_ids[0]"),
        (["system_prompt"], 3, "system_prompt"),
        (["ppl"], 0, "ppl"),
        (["base_ppl_08"], -1.0, "base_ppl_08"),
        (["label"], "", "label"),
        (["generations", 0, "gen"], ABSENT, "generations[0]"),
        (["generations", 1, "gen"], 3, "generations[1].gen"),
    ],
    "report": [
        (["level", "reached"], "publish", "level.reached"),
        (["findings", 0, "severity"], "fatal", "findings[0].severity"),
        (["verdicts", 0, "checks", 0, "verdict"], "maybe", "verdicts[0].checks[0].verdict"),
        (["run", "folder"], ABSENT, "folder"),
        (["data"], 3, "data"),
    ],
    "sae_pt": [
        (["state_dict", "W_enc", "shape"], [4], "state_dict.W_enc.shape"),
        (["state_dict", "b_dec", "dtype"], "int8", "state_dict.b_dec.dtype"),
        (["state_dict", "W_dec"], ABSENT, "W_dec"),
        (["state_dict", "threshold"], {"dtype": "float32", "shape": [12]}, "threshold"),
        (["k"], 0, "k"),
        (["d_sae"], 12.0, "d_sae"),
        (["layer"], "14", "layer"),
        (["model_id"], "x" * 257, "model_id"),
        (["final_recon"], -0.1, "final_recon"),
        (["steps"], 0.5, "steps"),
    ],
    "saelens_cfg": [
        (["architecture"], "standard", "architecture"),
        (["dtype"], "float64", "dtype"),
        (["apply_b_dec_to_input"], False, "apply_b_dec_to_input"),
        (["normalize_activations"], "layer_norm", "normalize_activations"),
        (["rescale_acts_by_decoder_norm"], True, "rescale_acts_by_decoder_norm"),
        (["metadata", "hook_name"], ABSENT, "hook_name"),
        (["metadata", "steer_eval", "steps"], 4000, "metadata.steer_eval.steps"),
    ],
    "saelens_weights": [
        (["W_enc", "dtype"], "F64", "W_enc.dtype"),
        (["W_dec", "shape"], [12], "W_dec.shape"),
        (["b_enc", "shape"], [12, 1], "b_enc.shape"),
        (["threshold"], {"dtype": "F32", "shape": [12]}, "threshold"),
    ],
    "size_comparison": [
        (["large", "per_layer"], ABSENT, "per_layer"),
        (["large", "per_layer", "six"], {}, "per_layer"),
        (["large", "per_layer", "6", "two"], PPL, "large.per_layer.6"),
        (["large", "per_layer", "6", "10", "ppl"], 0, "large.per_layer.6.10.ppl"),
        (["large", "per_layer", "6", "10", "collapsed"], None, "large.per_layer.6.10.collapsed"),
        (["large", "vectors", "6", "norm"], -1, "large.vectors.6.norm"),
        (["large", "vectors", "6", "shape"], [0], "large.vectors.6.shape[0]"),
        (["large"], [], "large"),
    ],
    "study": [
        (["title"], ABSENT, "title"),
        (["colour"], "red", "colour"),
        (["schema"], "steer-eval/study/9", "schema"),
        (["data"], "no-namespace", "data"),
        (["data"], "../persona-data", "data"),
        (["extraction", "pairs"], "../../etc/passwd", "extraction.pairs"),
        (["extraction", "pairs"], "/etc/passwd", "extraction.pairs"),
        (["sweep", "prompts"], "a/../../b.jsonl", "sweep.prompts"),
        (["perplexity", "corpus"], "..", "perplexity.corpus"),
        (["extraction", "layers"], [1, 1], "extraction.layers"),
        (["extraction", "layers"], [1.0], "extraction.layers[0]"),
        (["sweep", "coefficients"], [], "sweep.coefficients"),
        (["sweep", "collapse_ratio"], 1.0, "sweep.collapse_ratio"),
        (["perplexity", "beyond"], "wrap", "perplexity.beyond"),
        (["perplexity", "confidence"], 1, "perplexity.confidence"),
        (["tolerances", "perplexity", "scale"], "log", "tolerances.perplexity.scale"),
        (["tolerances", "perplexity", "drifted"], -0.1, "tolerances.perplexity.drifted"),
        (["models", "tiny", "source", "local"], {"path": "x"}, "models.tiny.source"),
        (["claims", 0, "expected"], "about 3", "claims[0].expected"),
        (["claims", 0, "expected"], None, "claims[0].expected"),
        (["claims", 0, "select", "label"], "best", "claims[0].select.label"),
        (["claims", 0, "select", "prompt"], 3, "claims[0].select"),
    ],
    "sweep_row": [
        (["ppl_ratio"], ABSENT, "ppl_ratio"),
        (["ppl"], 0, "ppl"),
        (["ppl"], "39.0", "ppl"),
        (["layer"], -1, "layer"),
        (["layer"], 6.0, "layer"),
        (["label"], "best", "label"),
        (["collapsed"], 0, "collapsed"),
        (["ppl_ratio_interval"], [1.0], "ppl_ratio_interval"),
        (["sentence_nll"], [], "sentence_nll"),
        (["sentence_nll"], [1e300], "sentence_nll[0]"),
        (["sentence_tokens"], [0], "sentence_tokens[0]"),
        (["generations", 0, "prompt"], ABSENT, "generations[0]"),
        (["generations", 0, "prompt_idx"], 0.0, "generations[0].prompt_idx"),
        (["generations", 0, "stop"], "bored", "generations[0].stop"),
    ],
    "transfer_diagnostics": [
        (["source", "layer"], -1, "source.layer"),
        (["pairs", "n"], 0, "pairs.n"),
        (["protocols"], {}, "protocols"),
        (["protocols", "plain", "settings", "rows"], "letters", "protocols.plain.settings.rows"),
        (["protocols", "plain", "debiased_cka", "p"], 0, "protocols.plain.debiased_cka.p"),
        (["protocols", "plain", "svcca", "null_95"], ABSENT, "null_95"),
        (["protocols", "plain", "maps", "random"], ABSENT, "random"),
    ],
    "transfer_map": [
        (["__metadata__", "alpha"], "-1.0", "__metadata__.alpha"),
        (["__metadata__", "alpha"], "nan", "__metadata__.alpha"),
        (["__metadata__", "L_large"], "14.0", "__metadata__.L_large"),
        (["__metadata__", "source_file"], ABSENT, "source_file"),
        (["__metadata__", "format"], "steer-eval/transferred/1", "__metadata__.format"),
        (["W", "dtype"], "F16", "W.dtype"),
        (["b", "shape"], [4, 1], "b.shape"),
        (["v_ridge"], {}, "v_ridge"),
    ],
    "neutral_sentence": [
        (["sentence"], "", "sentence"),
        (["topic"], None, "topic"),
        (["mood"], "calm", "mood"),
    ],
    "transfer_map_pt": [
        (["W", "dtype"], "float64", "W.dtype"),
        (["R", "shape"], [6], "R.shape"),
        (["b", "shape"], [4, 1], "b.shape"),
        (["alpha"], -1.0, "alpha"),
        (["L_large"], None, "L_large"),
    ],
    "transfer_row": [
        (["label"], "", "label"),
        (["ppl"], 0, "ppl"),
        (["base_ppl"], None, "base_ppl"),
        (["norm"], -0.1, "norm"),
        (["generations"], None, "generations"),
        (["generations", 0, "prompt_idx"], -1, "generations[0].prompt_idx"),
        (["generations", 1, "prompt"], ABSENT, "generations[1]"),
    ],
    "transferred": [
        (["__metadata__", "c_small"], "one", "__metadata__.c_small"),
        (["__metadata__", "L_small"], "-1", "__metadata__.L_small"),
        (["__metadata__", "source_sha256"], "abc", "__metadata__.source_sha256"),
        (["__metadata__", "source_sha256"], ABSENT, "source_sha256"),
        (["v_random", "dtype"], "BF16", "v_random.dtype"),
        (["v_ridge", "shape"], [6, 1], "v_ridge.shape"),
        (["vector"], {}, "vector"),
    ],
    "transferred_pt": [
        (["v_ridge", "dtype"], "int64", "v_ridge.dtype"),
        (["v_large_source", "shape"], [], "v_large_source.shape"),
        (["v_random"], [0.5], "v_random"),
        (["L_small"], 14.0, "L_small"),
        (["c_small"], True, "c_small"),
    ],
    "validation": [(["findings", 0, "rule"], "A b", "findings[0].rule"), (["checked"], "all", "checked")],
    "vector": [
        (["vector", "dtype"], "F16", "vector.dtype"),
        (["vector", "shape"], [2, 2], "vector.shape"),
        (["__metadata__", "norm"], "1.2.3", "__metadata__.norm"),
        (["__metadata__", "layer"], "-1", "__metadata__.layer"),
        (["__metadata__", "weights_sha256"], ABSENT, "weights_sha256"),
        (["other"], {}, "other"),
    ],
    "verdict": [
        (["verdict"], "fine", "verdict"),
        (["checks"], [], "checks"),
        (["checks", 0, "evidence"], "hearsay", "checks[0].evidence"),
        (["expected"], 1.5, "expected"),
        (["source", "line"], "3", "source.line"),
    ],
}
EXAMPLES |= schema_examples.EXAMPLES
COUNTER_EXAMPLES |= schema_examples.COUNTER_EXAMPLES
NAMES = sorted(path.name.removesuffix(".schema.json") for path in folder("schemas").iterdir())


def changed(value: Any, place: list[Any], new: Any) -> Any:
    value = deepcopy(value)
    inner = value
    for part in place[:-1]:
        inner = inner[part]
    if new is ABSENT:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return value


def test_no_schema_is_without_example_and_counter_example():
    assert NAMES == sorted(EXAMPLES) == sorted(COUNTER_EXAMPLES)
    assert all(COUNTER_EXAMPLES.values())


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_valid_2020_12_and_named_like_its_file(name):
    content = json.loads((folder("schemas") / f"{name}.schema.json").read_text(encoding="utf-8"))

    assert content["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert content["$id"] == name
    assert content["title"]
    Draft202012Validator.check_schema(content)
    assert schema.load_schema(name) == content


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_accepted(name):
    schema.check(EXAMPLES[name], name, file="x")


@pytest.mark.parametrize(
    ("name", "place", "new", "named"),
    [
        pytest.param(name, *case, id=f"{name}-{index}-{case[2]}")
        for name, cases in COUNTER_EXAMPLES.items()
        for index, case in enumerate(cases)
    ],
)
def test_the_counter_example_is_rejected_and_the_field_named(name, place, new, named):
    with pytest.raises(FormatError) as caught:
        schema.check(changed(EXAMPLES[name], place, new), name, file="some/file", where="line 4")

    assert caught.value.file == "some/file"
    assert caught.value.where.startswith("line 4")
    assert named in str(caught.value)
    assert f"schemas/{name}.schema.json" in caught.value.fix


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, [], "text", 3], ids=repr)
def test_what_is_no_object_is_rejected_everywhere(name, value):
    with pytest.raises(FormatError, match="is not of type 'object'"):
        schema.check(value, name, file="x")


@pytest.mark.parametrize("name", NAMES)
def test_every_required_field_is_required(name):
    for field in schema.load_schema(name)["required"]:
        with pytest.raises(FormatError, match=field):
            schema.check(changed(EXAMPLES[name], [field], ABSENT), name, file="x")


def test_messages_stay_short_and_keep_their_end():
    with pytest.raises(FormatError, match="is not of type 'string'") as caught:
        schema.check({"scenario": ["x" * 10_000]}, "eval_prompt", file="x")

    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([0.25] * 2048, "a list of 2048 items is not of type 'object'"),
        ({"scenario": {str(key): key for key in range(99)}}, "an object with 99 keys is not of type 'string'"),
        ({"scenario": [1, 2]}, "[1, 2] is not of type 'string'"),
    ],
    ids=["list", "object", "short list"],
)
def test_a_long_value_is_described(value, said):
    with pytest.raises(FormatError) as caught:
        schema.check(value, "eval_prompt", file="x")

    assert caught.value.reason == said


def test_a_table_that_is_wrong_throughout_is_not_gone_through():
    seen = set()

    class Row(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            seen.add(id(self))
            return super().__contains__(key)

    rows = [Row(prompt_idx=-1, prompt="p", gen="g") for _ in range(10_000)]
    with pytest.raises(FormatError, match="prompt_idx"):
        schema.check({**SWEEP_ROW, "generations": rows}, "sweep_row", file="x")

    assert 0 < len(seen) < 100


def test_what_the_package_writes_satisfies_its_schemas(tmp_path):
    place = build(tmp_path)
    for folder_ in (place.model, place.data):
        schema.check(json.loads((folder_ / "manifest.json").read_text()), "manifest", file="manifest.json")
    schema.check(json.loads((place.data / "environment.json").read_text()), "environment", file="environment.json")
    for line in (place.data / "sweep_tiny.jsonl").read_text().splitlines():
        schema.check(json.loads(line), "sweep_row", file="sweep_tiny.jsonl")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("sweep_qwen_*.jsonl", "sweep_row"),
        ("contrast_pairs.jsonl", "contrast_pair"),
        ("eval_prompts.jsonl", "eval_prompt"),
        ("judge_*_large.jsonl", "judge_row"),
        ("judge_*_small.jsonl", "judge_row"),
        ("judge_*transfer.jsonl", "judge_label_row"),
        ("judge_phase_i.jsonl", "judge_label_row"),
        ("transfer_eval.jsonl", "transfer_row"),
        ("patch_eval.jsonl", "phase_i_row"),
        ("sae_steer_eval.jsonl", "phase_i_row"),
        ("multi_layer_eval.jsonl", "phase_i_row"),
        ("anchor_eval.jsonl", "phase_i_row"),
    ],
)
def test_the_published_form_is_extended_never_renamed(upstream, pattern, name):
    files = sorted((upstream / "dataset").glob(pattern))
    assert files
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            schema.check(json.loads(line), name, file=file.name, where=f"line {number}")


@pytest.mark.parametrize("name", ["latent_diff", "size_comparison"])
def test_the_published_documents_satisfy_their_schemas(upstream, name):
    # One of them has NaN, which is no JSON but, once it is null, does not break the form.
    text = (upstream / "dataset" / f"{name}.json").read_text(encoding="utf-8")
    schema.check(json.loads(text, parse_constant=lambda _: None), name, file=name)


def test_a_size_comparison_of_nothing_is_rejected():
    with pytest.raises(FormatError, match="should be non-empty"):
        schema.check({}, "size_comparison", file="x")
