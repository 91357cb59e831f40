"""The files of a repository that a merge reads or copies."""

from __future__ import annotations

from fnmatch import fnmatchcase

from .._C import InputError

# Repositories may have the weights twice; the first pattern with files counts.
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "*.safetensors")
# Files that a merge reads or copies next to the weights.
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
_IN_DIRECTORIES = (
    "additional_chat_templates/*",
    "[0-9]_*/*.json",  # modules of sentence-transformers
    "[0-9]_*/*.safetensors",
)


def weights_of(name: str, files: list[str]) -> list[str]:
    top = [file for file in files if "/" not in file]
    for pattern in _WEIGHTS:
        if found := [file for file in top if fnmatchcase(file, pattern)]:
            return found
    if any(fnmatchcase(file, "0_*/*.safetensors") for file in files):
        raise InputError(
            f"{name}: has its weights in the directory of a first module; save it with "
            "a current sentence-transformers, which puts them at the top"
        )
    raise InputError(
        f"{name}: has no .safetensors file on the Hub; save the model as "
        "safetensors, with save_pretrained of transformers"
    )


def companions_of(files: list[str]) -> list[str]:
    return [
        file
        for file in files
        if any(
            fnmatchcase(file, pattern)
            for pattern in (_IN_DIRECTORIES if "/" in file else _COMPANIONS)
        )
    ]
