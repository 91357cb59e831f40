"""Numbers of the models in results.json."""

from __future__ import annotations

import math
from typing import Any

Model = dict[str, Any]
AVERAGE = "average"


def scores(model: Model, panel: str) -> dict[str, float]:
    """The numbers on one test set, or their means over the sets for "average"."""
    return model[AVERAGE] if panel == AVERAGE else model["sets"][panel]


def standard_error(model: Model, panel: str, quantity: str) -> float | None:
    """Over seeds; None for a run of one seed."""
    errors = model.get("standard_error")
    return None if errors is None else scores(errors, panel).get(quantity)


def norm(model: Model, key: str = "norm") -> float | None:
    """Norm of the gradient mismatch, or None where it was not measured."""
    total = model.get("mismatch", {}).get("total", {})
    value = total.get("mismatch", {}).get(key)
    return value if value is not None and math.isfinite(value) else None


def majority(results: dict[str, Any], panel: str) -> float:
    """Share of the most frequent label."""
    shares = results["majority"]
    return sum(shares.values()) / len(shares) if panel == AVERAGE else shares[panel]


def merges(results: dict[str, Any]) -> list[Model]:
    """All models that no training on the sets gave."""
    trained = ("base", "expert", "target")
    return [model for model in results["models"] if model["kind"] not in trained]


def candidates(results: dict[str, Any]) -> list[Model]:
    """Merges of all experts, and refinements: those that compete with each other."""
    return [m for m in merges(results) if not lacks_experts(results, m)]


def useful(results: dict[str, Any]) -> list[Model]:
    """Models clearly better on average than the most frequent label of each set: by
    more than a fifth of what the best model is. All models if none is better. Figures
    leave the others out, which would stretch their axes."""
    models = results["models"]
    chance = majority(results, AVERAGE)
    best = max(scores(m, AVERAGE)["accuracy"] for m in models)
    if best <= chance:
        return models
    least = chance + (best - chance) / 5
    return [m for m in models if scores(m, AVERAGE)["accuracy"] > least]


def lacks_experts(results: dict[str, Any], model: Model) -> bool:
    """True for a merge of some of the experts only."""
    experts = [m for m in results["models"] if m["kind"] == "expert"]
    return len(model.get("experts", experts)) < len(experts)


def output(results: dict[str, Any]) -> Model | None:
    """The model that the experiment names as its result, by a path per seed."""
    paths = results.get("output") or ""
    parts = (paths if isinstance(paths, str) else paths[0]).split("/")
    return next((model for model in merges(results) if model["name"] in parts), None)
