"""Measuring cells: perplexity and greedy text, many cells in one batch, and one by one as the oracle."""
