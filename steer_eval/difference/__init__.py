"""What differs between two studies: their files, the numbers of their cards, and their claims.

Invariant: comparing is a pure function of two sides that were read before; the same content, wherever it comes from, is
never a difference.
"""
