"""Models of sentence-transformers, without importing it."""

from typing import Any, TypeVar

T = TypeVar("T")

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


def names_in_files(model: Any, tensors: dict[str, T]) -> dict[str, T]:
    """Values by the names of a sentence model's tensors, with those of its files."""
    return {name_in_files(model, name): x for name, x in tensors.items()}


def names_in_memory(model: Any, tensors: dict[str, T]) -> dict[str, T]:
    """Values by the names of files, with those of a sentence model's tensors."""
    names = {name_in_files(model, name): name for name in model.state_dict()}
    return {names.get(name, name): x for name, x in tensors.items()}
