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
        at_target: the target's mismatch; None without a target.
    """

    candidates: dict[str, CandidateMismatch]
    parameters: int
    examples: dict[str, int]
    parameters_without_h0: int | None = None
    target: Difference | None = None
    at_target: CandidateMismatch | None = None

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
        """The norms as text, a row per candidate (the target, theta*, is the last one),
        task and group; below them how many parameters H_0 leaves out, and the sides of
        the target's identity."""
        rows = [["model", "part", "mismatch", "explained", "rest"]]
        if self.parameters_without_h0 is not None:
            rows[0] += [f"{part}, 1/H0" for part in rows[0][2:]]
        measured = list(self.candidates.items())
        if self.at_target is not None:
            measured.append(("theta*", self.at_target))
        for name, found in measured:
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
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> list[str]:
        if self.parameters_without_h0 is None:
            return []
        notes = [
            f"H0 = 0 for {self.parameters_without_h0} of {self.parameters} parameters, "
            "which norms in 1/H0 leave out."
        ]
        if self.target is not None:
            notes.append(
                "Target, where H0 > 0: |theta* - theta_TA| = "
                f"{self.target.left_norm:.4g}, |m(theta*) / H0| = "
                f"{self.target.right_norm:.4g}; of the difference of both sides "
                f"{self.target.difference_norm:.4g}, cosine {self.target.cosine:.4f}."
            )
        return notes

    def _cells(self, found: Mismatch) -> list[str]:
        norms = [found.mismatch, found.explained, found.rest]
        cells = ["-" if n is None else f"{n.norm:.4g}" for n in norms]
        if self.parameters_without_h0 is not None:
            for n in norms:
                cells.append("-" if n is None else f"{n.h0_inverse_norm:.4g}")
        return cells

    def __str__(self) -> str:
        return self.table()
