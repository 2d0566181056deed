"""Kinds of files, told by their paths.

Invariant: every path has exactly one kind; the names of kinds are those of the manifest. What is in a PyTorch file
can't be told from its path alone, so `inventory.py` looks inside.
"""

from __future__ import annotations

import re

_RULES: tuple[tuple[str, str], ...] = (
    ("study", r"study\.yaml"),
    ("card", r"README\.md"),
    ("config", r"config\.json"),
    ("manifest", r"manifest\.json"),
    ("contrast_pairs", r"contrast_pairs\.jsonl"),
    ("eval_prompts", r"eval_prompts\.jsonl"),
    ("perplexity_corpus", r"perplexity_corpus\.txt"),
    ("environment", r"environment\.json"),
    ("vector", r"vectors/(.*/)?[^/]+\.safetensors"),
    ("control_vector", r"vectors/(.*/)?[^/]+\.gguf"),
    ("transfer", r"transfer/(.*/)?[^/]+\.safetensors"),
    ("sae", r"(.*/)?sae_weights\.safetensors"),
    ("sae_config", r"saes/(.*/)?cfg\.json"),
    ("sae_activity", r"saes/(.*/)?activity\.safetensors"),
    ("sae_quality", r"saes/[^/]+_quality\.json"),
    ("features", r"(.*/)?[^/]*features\.json"),
    ("latent_diff", r"(.*/)?latent_diff\.json"),
    ("transfer_diagnostics", r"transfer/[^/]+_diagnostics\.json"),
    ("size_comparison", r"(.*/)?size_comparison\.json"),
    ("sweep", r"sweep_[^/]+\.jsonl"),
    ("comparison", r"comparison_[^/]+\.jsonl"),
    ("judge_labels", r"judge_(.+_)?(transfer|phase_i)\.jsonl"),
    ("judge_comparison", r"judge_[^/]+_comparison\.jsonl"),
    ("judge", r"judge_[^/]+\.jsonl"),
    ("transfer_eval", r"transfer_eval\.jsonl"),
    ("phase_i", r"(patch|sae_steer|multi_layer|anchor)_eval\.jsonl"),
    ("torch", r"(.*/)?[^/]+\.(pt|pth|bin)"),
    ("figure", r"(.*/)?[^/]+\.(svg|png)"),
    ("json", r"(.*/)?[^/]+\.json"),
    ("jsonl", r"(.*/)?[^/]+\.jsonl"),
    ("yaml", r"(.*/)?[^/]+\.ya?ml"),
)
_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _RULES)


def kind_of(path: str) -> str:
    """Kind of a file, from its path inside the repo; `other` if the path says nothing."""
    return next((kind for kind, pattern in _PATTERNS if pattern.fullmatch(path)), "other")
