"""Steering: what is added to the residual stream (`interventions`) and how it gets into a block (`hooks`)."""
