"""Steering: what is done to the residual stream (`interventions`), row by row (`row_edits`), in a block (`hooks`)."""
