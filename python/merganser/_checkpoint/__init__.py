"""Fishers from optimizers' states and from files of other programs."""
