"""Edits of safetensors files that keep everything else."""

import safetensors
import safetensors.torch


def rewrite(file, edit=lambda tensors: tensors, **metadata):
    """Replaces a file's tensors by edit(tensors), and these values of its metadata."""
    with safetensors.safe_open(file, "pt") as opened:
        kept = opened.metadata()
    tensors = edit(safetensors.torch.load_file(file))
    safetensors.torch.save_file(tensors, file, kept | metadata)


def change(file, name, edit):
    """Replaces one tensor x by edit(x)."""
    rewrite(file, lambda tensors: tensors | {name: edit(tensors[name])})
