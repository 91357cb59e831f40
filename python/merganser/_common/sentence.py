"""Models of sentence-transformers, without importing it."""

from typing import Any

# Attributes of the transformer in module 0, in current and in older versions.
_TRANSFORMERS = ("0.model.", "0.auto_model.")


def is_sentence_model(model: Any) -> bool:
    """True for SentenceTransformer, CrossEncoder and others, and their subclasses."""
    return any(
        c.__module__.startswith("sentence_transformers.") for c in type(model).__mro__
    )


def name_in_files(model: Any, name: str) -> str:
    """The name of a tensor of a sentence model in the files of its directory:
    "encoder.layer.0..." of the transformer, "2_Dense/linear.weight" of a module."""
    for transformer in _TRANSFORMERS:
        if name.startswith(transformer):
            return name.removeprefix(transformer)
    module, rest = name.split(".", 1)
    return f"{module}_{type(model._modules[module]).__name__}/{rest}"
