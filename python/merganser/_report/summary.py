"""Sentences that say what the table of results says."""

from __future__ import annotations

from .models import AVERAGE, Model, candidates, output
from .outcome import Results
from .tables import against, probability


def summary(results: Results) -> list[str]:
    """Sentences about the best merges of all experts, the target and the experiment's
    own choice."""
    found = candidates(results)
    if not found:
        return [f"{len(results['models'])} models and no merge of all experts."]
    accurate = max(found, key=lambda m: m[AVERAGE]["accuracy"])
    likely = min(found, key=lambda m: m[AVERAGE]["loss"])
    over = (
        f" (means over {len(results['seeds'])} seeds)" if results.get("seeds") else ""
    )
    text = f"Of {_counted(found)} on {_sets(results)}{over}, "
    if accurate is likely:
        text += f"{accurate['name']} is the most accurate and has the lowest loss: "
        text += f"{_numbers(accurate)}."
    else:
        text += (
            f"{accurate['name']} is the most accurate ({_numbers(accurate)}) and "
            f"{likely['name']} has the lowest loss ({_numbers(likely)})."
        )
    sentences = [text]
    target = next((m for m in results["models"] if m["kind"] == "target"), None)
    base = next((m for m in results["models"] if m["kind"] == "base"), None)
    others = [
        f"the {name} has {_numbers(model)}"
        for name, model in (("jointly trained target", target), ("base", base))
        if model is not None
    ]
    if others:
        text = ", ".join(others)
        sentences.append(text[0].upper() + text[1:] + ".")
    chosen = output(results)
    if chosen is not None:
        sentences.append(_choice(results, chosen, accurate))
    return sentences


def _counted(found: list[Model]) -> str:
    """Numbers of merges and of refinements."""
    refined = sum(model["kind"] == "refined" for model in found)
    merged = len(found) - refined
    counts = ((merged, "merge", " of all experts"), (refined, "refined merge", ""))
    texts = [f"{n} {name}{'s' * (n > 1)}{rest}" for n, name, rest in counts if n]
    return " and ".join(texts)


def _choice(results: Results, chosen: Model, accurate: Model) -> str:
    """About the merge that the experiment names before any test."""
    text = f"The experiment's output, {chosen['name']}, named before any test, "
    parts = []
    if chosen is not accurate:
        parts.append(f"has {_numbers(chosen)}")
    if "share_of_gap" in chosen:
        share = 100 * chosen["share_of_gap"]
        ends = results.get("gap", {"from": "task_arithmetic(1)", "to": "the target"})
        parts.append(
            f"closes {share:.0f} % of the gap in accuracy between {ends['from']} and "
            f"{ends['to']}"
        )
    if not parts:
        return text + "is the most accurate."
    text += " and ".join(parts) + "."
    pairs = against(results.get("comparisons", []), chosen["name"])
    pair = next((p for p in pairs if p["a"] == accurate["name"]), None)
    if pair is not None:
        average = pair["average"]
        values = [100 * average[key] for key in ("difference", "low", "high")]
        text += (
            f" {accurate['name']} is {values[0]:.1f} points more accurate (95 % "
            f"interval {values[1]:.1f} to {values[2]:.1f}, p {_equals(average['p'])})."
        )
    return text.replace(" -", " \N{MINUS SIGN}")


def _equals(p: float) -> str:
    text = probability(p).text
    return text if text.startswith("<") else f"= {text}"


def _numbers(model: Model) -> str:
    average = model[AVERAGE]
    return f"{100 * average['accuracy']:.1f} %, loss {average['loss']:.3f}"


def _sets(results: Results) -> str:
    sets = results["sets"]
    return sets[0] if len(sets) == 1 else f"{len(sets)} test sets"
