"""Likelihoods of labels given model outputs."""
