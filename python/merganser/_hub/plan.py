"""Plans with models that the Hub's cache lacks."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from .. import _C
from .._C import Error
from .headers import fetch_headers


def plan_recipe(
    recipe: str | os.PathLike,
    *,
    threads: int = 0,
    memory: int | None = None,
    json: bool = True,
) -> str:
    """The plan of a recipe, which reads the headers only of models that are not
    downloaded, and calls them as the recipe does."""
    names: dict[str, str] = {}  # of their directories

    def named(text: str) -> str:
        for folder, name in names.items():
            text = text.replace(folder, name)
        return text

    with ExitStack() as stack:

        @cache
        def root() -> str:
            return stack.enter_context(tempfile.TemporaryDirectory(prefix="merganser-"))

        @cache
        def find(text: str, name: str, revision: str) -> Path:
            folder = fetch_headers(text, name, revision, root())
            names[str(folder)] = text
            return folder

        try:
            return named(_C.plan(recipe, find, threads, memory, json))
        except Error as error:
            raise type(error)(named(str(error))) from None
