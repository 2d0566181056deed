"""What steering costs elsewhere: lm-eval's tasks on the steered and the unsteered model, document by document.

Invariant: nothing here imports lm-eval or torch before it is used, except the modules that lm-eval itself loads
(`lm_eval_model`, `token_perplexity`, `documents`) and those that run it.
"""
