"""The mismatch of merged models, as numbers, text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from ._objective.norms import Difference, Norms


@dataclass(frozen=True)
class Mismatch:
    """Norms of a mismatch, of its part that the Fishers explain and of the rest.

    `explained` and `rest` are None without Fishers.
    """

    mismatch: Norms
    explained: Norms | None = None
    rest: Norms | None = None


@dataclass(frozen=True)
class CandidateMismatch:
    """Mismatch of one candidate: in total, by task and by group of parameters.

    `groups` has the total's norms by group, or nothing for groups="global".
    """

    total: Mismatch
    tasks: dict[str, Mismatch]
    groups: dict[str, Mismatch] = field(default_factory=dict)


@dataclass(frozen=True)
class MismatchResult(Mapping[str, CandidateMismatch]):
    """Result of `mismatch`: a mapping from the candidates' names; prints as a table.

    Attributes:
        candidates: the mismatch of each.
        parameters_without_h0: number of coordinates with H_0 = 0, which the norms in
            the inverse of H_0 leave out; None without a base Fisher.
        parameters: number of coordinates.
        examples: numbers of examples used, by task.
        target: both sides of the identity at the target, theta* - theta_TA and
            -m(theta*) / H_0, over the coordinates with H_0 > 0; None without a target.
    """

    candidates: dict[str, CandidateMismatch]
    parameters: int
    examples: dict[str, int]
    parameters_without_h0: int | None = None
    target: Difference | None = None

    def __getitem__(self, name: str) -> CandidateMismatch:
        return self.candidates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.candidates)

    def __len__(self) -> int:
        return len(self.candidates)

    def to_json(self) -> str:
        """All numbers as JSON text."""
        return json.dumps(asdict(self), indent=2)

    def table(self) -> str:
        """The norms as text: a row per candidate, task and group."""
        rows = [["model", "part", "mismatch", "explained", "rest"]]
        if self.parameters_without_h0 is not None:
            rows[0] += ["mismatch, 1/H0", "rest, 1/H0"]
        for name, found in self.candidates.items():
            parts = {"total": found.total, **found.tasks, **found.groups}
            rows += [[name, part, *self._cells(x)] for part, x in parts.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)

    def _cells(self, found: Mismatch) -> list[str]:
        norms = [found.mismatch, found.explained, found.rest]
        cells = ["-" if n is None else f"{n.norm:.4g}" for n in norms]
        if self.parameters_without_h0 is not None:
            for n in (found.mismatch, found.rest):
                cells.append("-" if n is None else f"{n.h0_inverse_norm:.4g}")
        return cells

    def __str__(self) -> str:
        return self.table()
