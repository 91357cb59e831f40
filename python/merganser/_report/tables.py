"""Tables of the page, as cells with a text and a key to sort by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .models import AVERAGE, Model, candidates, norm, scores, standard_error
from .outcome import Outcome, Results


@dataclass(frozen=True)
class Cell:
    """`key`: a number to sort by, or None to sort by the text. `mark`: a CSS class."""

    text: str
    key: float | None = None
    mark: str = ""


@dataclass
class Table:
    """Titles with an explanation each, and rows; the first column has the names."""

    titles: list[tuple[str, str]]
    rows: list[list[Cell]] = field(default_factory=list)

    def has_text(self, column: int) -> bool:
        """True for a column without numbers."""
        return all(row[column].key is None for row in self.rows)


def number(value: float | None, places: int, spread: float | None = None) -> Cell:
    """An empty cell for None; with the standard error if given."""
    if value is None:
        return Cell("")
    text = f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}")
    if spread is not None:
        text += f" \N{PLUS-MINUS SIGN} {spread:.{places}f}"
    return Cell(text, value)


def significant(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(f"{value:.4g}", value)


def probability(p: float) -> Cell:
    return Cell("<0.001" if p < 0.001 else f"{p:.3f}", p)


def results_table(results: Results) -> Table:
    """All models: accuracies, loss, calibration, share of the gap, mismatch, costs."""
    models = results["models"]
    sets = results["sets"]
    quantities = [
        (key, "accuracy", 1, 100, f"accuracy on {key}, %") for key in sets
    ] + [
        (AVERAGE, key, places, factor, title)
        for key, places, factor, title in (
            ("accuracy", 1, 100, "mean accuracy of the sets, %"),
            ("accuracy_over_examples", 1, 100, "share of all examples, %"),
            ("loss", 3, 1, "mean loss of the sets, nats"),
            ("calibration_error", 1, 100, "mean calibration error of the sets, %"),
        )
        if any(key in model[AVERAGE] for model in models)
    ]
    short = {"accuracy": "average", "accuracy_over_examples": "pooled"}
    short["calibration_error"] = "calibration"
    table = Table([("model", "name"), ("kind", "how the model was obtained")])
    for panel, key, *_, title in quantities:
        table.titles.append((short.get(key, key) if panel == AVERAGE else panel, title))
    gap = any("share_of_gap" in model for model in models)
    if gap:
        ends = results.get("gap", {"from": "task_arithmetic(1)", "to": "the target"})
        title = f"share of the accuracy gap from {ends['from']} to {ends['to']}, %"
        table.titles.append(("gap", title))
    retained = any("retained" in model for model in models)
    if retained:
        title = f"accuracy on {results['base_data']} as a share of the base's, %"
        table.titles.append(("retained", title))
    norms = [
        key for key in ("norm", "h0_inverse_norm") if any(norm(m, key) for m in models)
    ]
    for key in norms:
        name = {"norm": "mismatch", "h0_inverse_norm": "in 1/H0"}[key]
        table.titles.append((name, f"gradient mismatch, {key.replace('_', ' ')}"))
    for model in models:
        row = [Cell(model["name"]), Cell(model["kind"])]
        for panel, key, places, factor, _ in quantities:
            value = scores(model, panel).get(key)
            error = standard_error(model, panel, key)
            scaled = [None if v is None else factor * v for v in (value, error)]
            row.append(number(scaled[0], places, scaled[1]))
        if gap:
            share = model.get("share_of_gap")
            row.append(number(None if share is None else 100 * share, 0))
        if retained:
            row.append(number(100 * model["retained"], 1))
        row += [significant(norm(model, key)) for key in norms]
        table.rows.append(row)
    mark_best(table, [model in candidates(results) for model in models])
    add_costs(table, models)
    return table


def add_costs(table: Table, models: list[Model]) -> None:
    """Appends the cost of each merge in addition to its models, if results have it."""
    if not any("cost" in model for model in models):
        return
    table.titles += [
        ("examples", "training and validation examples of statistics and sweeps"),
        ("seconds", "of statistics, sweep and merge"),
        ("MB", "size of the files of statistics"),
    ]
    for row, model in zip(table.rows, models, strict=True):
        cost = model.get("cost", {})
        examples, seconds, size = map(cost.get, ("examples", "seconds", "bytes"))
        row += [
            number(examples, 0),
            number(seconds, 1),
            number(None if size is None else size / 1e6, 1),
        ]


def mark_best(table: Table, competes: list[bool]) -> None:
    """Marks the best of the rows that compete, in each column of accuracies, losses and
    errors; all with the same mean as shown, whatever their standard errors."""
    low = {"loss", "calibration", "mismatch", "in 1/H0"}
    merged = [row for row, c in zip(table.rows, competes, strict=True) if c]

    def mean(cell: Cell) -> str:
        return cell.text.split(" \N{PLUS-MINUS SIGN} ")[0]

    for column in range(2, len(table.titles)):
        cells = [row[column] for row in merged if row[column].key is not None]
        if len(cells) > 1:
            choose = min if table.titles[column][0] in low else max
            best = choose(cells, key=lambda cell: cell.key or 0.0)
            for row in merged:
                if mean(row[column]) == mean(best):
                    row[column] = replace(row[column], mark="best")


def comparisons_table(
    comparisons: Iterable[Results], sets: list[str], second: bool = True
) -> Table:
    """Paired differences a - b with intervals, and McNemar's test per set; without the
    column of b where it is the same in all."""
    table = Table(
        [
            ("a", "first model"),
            ("b", "second model"),
            ("average", "difference of mean accuracies of the sets, points, a - b"),
            ("95 %", "interval of the paired bootstrap"),
            ("p", "of the paired bootstrap, two-sided"),
            ("pooled", "difference of the shares of all examples, points"),
            ("loss", "difference of losses with standard error, nats"),
            *(
                (key, f"{key}: right only in a : only in b, McNemar's p")
                for key in sets
            ),
        ]
    )
    for pair in comparisons:
        average, loss = pair["average"], pair["loss"]
        low, high = (100 * average[key] for key in ("low", "high"))
        interval = f"{low:+.1f} to {high:+.1f}".replace("-", "\N{MINUS SIGN}")
        row = [
            Cell(pair["a"]),
            Cell(pair["b"]),
            signed(100 * average["difference"], 1),
            Cell(interval, low),
            probability(average["p"]),
            signed(100 * pair["accuracy_over_examples"]["difference"], 1),
            signed(loss["difference"], 3, loss["standard_error"]),
        ]
        for key in sets:
            found = pair["sets"][key]
            p = probability(found["mcnemar_p"])
            row.append(Cell(f"{found['only_a']} : {found['only_b']}, {p.text}", p.key))
        if low > 0 or high < 0:
            row[2] = Cell(row[2].text, row[2].key, "best")
        table.rows.append(row)
    if not second:
        for row in (table.titles, *table.rows):
            del row[1]
    return table


def signed(value: float, places: int, spread: float | None = None) -> Cell:
    cell = number(value, places, spread)
    return Cell(cell.text if value < 0 else f"+{cell.text}", value)


def against(comparisons: Iterable[Results], name: str) -> list[Results]:
    """The pairs with `name`, which becomes b in each."""
    return [
        pair if pair["b"] == name else _swapped(pair)
        for pair in comparisons
        if name in (pair["a"], pair["b"])
    ]


def _swapped(pair: Results) -> Results:
    sets = {
        key: {**found, "only_a": found["only_b"], "only_b": found["only_a"]}
        for key, found in pair["sets"].items()
    }
    turned = {
        key: {
            **pair[key],
            "difference": -pair[key]["difference"],
            "low": -pair[key]["high"],
            "high": -pair[key]["low"],
        }
        for key in ("average", "accuracy_over_examples")
    }
    loss = {**pair["loss"], "difference": -pair["loss"]["difference"]}
    return {"a": pair["b"], "b": pair["a"], "sets": sets, **turned, "loss": loss}


def removal_table(removal: Results) -> Table:
    """Models without a set, compared with the one retrained without it."""
    data = removal["data"]
    table = Table([("model", "name"), ("kind", "how the model was obtained")])
    for part in (data, "other sets"):
        table.titles += [
            (f"{part}: accuracy", "accuracy, %"),
            ("loss", "nats"),
            ("distance", "total variation from the retrained model's predictions"),
        ]
    table.titles += [
        ("clamped", "share of denominators below clamp, %: task negation there"),
        ("largest weight", "of an element of the task vector"),
    ]
    for model in removal["models"]:
        row = [Cell(model["name"]), Cell(model["kind"])]
        for part in ("removed", "rest"):
            spread = model.get("standard_error", {}).get(part, {})
            for key, places, factor in (
                ("accuracy", 1, 100),
                ("loss", 3, 1),
                ("distance", 3, 1),
            ):
                error = factor * spread[key] if key in spread else None
                row.append(number(factor * model[part][key], places, error))
        clamped = model.get("clamped_fraction")
        row.append(number(None if clamped is None else 100 * clamped, 2))
        row.append(significant(model.get("largest_weight")))
        table.rows.append(row)
    return table


def data_table(outcome: Outcome) -> Table:
    """Numbers of examples of each set, of the first seed."""
    examples = outcome.examples()
    majority = outcome.results["majority"]
    parts = list(dict.fromkeys(p for found in examples.values() for p in found))
    table = Table([("set", "name"), *((part, f"{part} examples") for part in parts)])
    table.titles.append(("majority", "share of the most frequent label in the test, %"))
    for name in outcome.results["sets"]:
        counts = examples.get(name, {})
        row = [Cell(name)]
        for part in parts:
            total = sum(counts[part]) if part in counts else None
            row.append(Cell("") if total is None else Cell(f"{total:,}", total))
        share = majority.get(name)
        row.append(number(None if share is None else 100 * share, 1))
        table.rows.append(row)
    return table


def stages_table(results: Results) -> Table:
    """Seconds and hash of the output of each stage."""
    table = Table([("stage", "what ran"), ("seconds", "s"), ("output", "xxh3-128")])
    for stage in results.get("stages", []):
        name = Cell(stage["name"])
        output = Cell(stage["output"], mark="hash")
        table.rows.append([name, number(stage["seconds"], 1), output])
    return table


def timings_table(results: Results) -> Table:
    """Seconds by kind of stage: the first word of its name, after its seed."""
    totals: dict[str, list[float]] = {}
    for stage in results.get("stages", []):
        kind = stage["name"].split(": ")[-1].split()[0]
        totals.setdefault(kind, []).append(stage["seconds"])
    table = Table([("stages", "kind"), ("number", "of stages"), ("seconds", "in all")])
    for kind, seconds in totals.items():
        count = Cell(str(len(seconds)), len(seconds))
        table.rows.append([Cell(kind), count, number(sum(seconds), 1)])
    return table
