"""What of a residual is only rounding.

Invariant: one bound decides everywhere what counts as nothing, always relative to the size of what was subtracted or
turned, never by itself: a norm of 1e-6 is nothing beside residuals of norm 100, and a direction beside ones of 1e-6.
"""

from __future__ import annotations

ROUNDING = 1e-6
"""Residuals are in float32, with 24 bits, and the same text has another last bit or two in another batch: what differs
by less, as a share of the size of what it is a difference of, is not known to differ."""
