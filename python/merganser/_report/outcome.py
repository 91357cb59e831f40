"""The files of an experiment's directory that a report reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._C import InputError
from .._merge.checkpoint import read_state

Results = dict[str, Any]


class Outcome:
    """An experiment's directory OUT.

    Attributes:
        results: its results.json.
        runs: the directory of each seed, by its name; of one seed, OUT under "".
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.results = self._finished(out)
        seeds = [str(seed) for seed in self.results.get("seeds", [])]
        self.runs = {seed: out / "seeds" / seed for seed in seeds} or {"": out}

    def refinements(self) -> Iterator[tuple[str, Results]]:
        """Name and report of each refinement, of each seed."""
        for seed, out in self.runs.items():
            run = self._finished(out) if seed else self.results
            for report in run.get("refinements", []):
                name = report["name"]
                yield f"{name}, seed {seed}" if seed else name, report

    def _finished(self, out: Path) -> Results:
        """The results in OUT or in the directory of one of its seeds."""
        path = out / "results.json"
        if not path.is_file():
            raise InputError(
                f"{path}: does not exist; run `merganser run EXPERIMENT.yaml "
                f"{self.out}` to its end first"
            )
        return _read(path)

    def examples(self) -> Results:
        """Numbers of examples per label of each file, from data.json."""
        path = next(iter(self.runs.values())) / "data.json"
        return _read(path) if path.is_file() else {}

    def predictions(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Class probabilities and labels of all sets and seeds; None without a file."""
        probabilities, labels = [], []
        for out in self.runs.values():
            path = out / "evaluations" / f"{name}.safetensors"
            if not path.is_file():
                return None
            state = read_state(path)
            for key in self.results["sets"]:
                probabilities.append(state[key])
                labels.append(state[f"{key}.labels"])
        return torch.cat(probabilities), torch.cat(labels)


def _read(path: Path) -> Results:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: expected JSON, got: {error}") from None
