"""Carrying steering vectors from one model to another."""
