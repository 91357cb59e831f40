"""Figures, tables and the page of an experiment's results."""
