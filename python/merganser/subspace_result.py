"""What subspace_gradient_matching needs of a base and its experts."""

from __future__ import annotations

import os

from . import _C
from ._C import InputError


class SubspaceResult:
    """The losses of a base and its experts in the span of the task vectors.

    Column (t, g) of the span is task vector t on group g of the parameters. It is all
    that the method subspace_gradient_matching needs, and far smaller than a model.
    """

    def __init__(self, content: _C.SubspaceFisher):
        self.content = content

    @property
    def groups(self) -> dict[str, list[str]]:
        """Names of the parameters in each group."""
        return dict(self.content.groups)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file of `merganser subspace`, for recipes.

        Raises InputError for a model whose checkpoint is unknown: a recipe finds the
        experts by their hashes.
        """
        content = self.content
        for label, loss in [
            ("base", content.base),
            *((f"experts[{t}]", loss) for t, loss in enumerate(content.experts)),
        ]:
            if not loss.model_hash:
                raise InputError(
                    f"{label} has no known checkpoint, by which a recipe would find "
                    "it: pass the path of its directory, or a module that transformers "
                    "loaded from there"
                )
        content.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> SubspaceResult:
        """Reads a file that `save` or the executable wrote.

        Raises InputError for any other file.
        """
        return cls(_C.SubspaceFisher.load(path))

    def __repr__(self) -> str:
        losses = [self.content.base, *(x for x in self.content.experts if x.counts)]
        counts = ", ".join(str(sum(loss.counts)) for loss in losses)
        number = len(self.content.experts) - len(losses) + 1
        directions = f"directions: {number}, " if number else ""
        return (
            f"SubspaceResult({len(losses) - 1} experts, {directions}"
            f"{len(self.groups)} groups, {counts} examples of the base and the experts)"
        )
