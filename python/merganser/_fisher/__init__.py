"""Per-example statistics of a running model: Fishers and Gram matrices."""
