"""Merging of tensors in memory."""
