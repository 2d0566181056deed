"""Fuzzing of every reader of files from strangers."""
