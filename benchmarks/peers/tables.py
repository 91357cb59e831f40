"""The measurements as Markdown."""

from statistics import median

from .measure import OURS

NAMES = {
    "plain": "forward + backward",
    "loop": "loop over single examples",
    "nngeometry": "nngeometry, extended",
    "nngeometry-released": "nngeometry as released",
    "opacus": "Opacus",
}


def speed_tables(cells, peers):
    """One table for each model and dtype."""
    for model, dtype in dict.fromkeys((c["model"], c["dtype"]) for c in cells):
        print(f"\n### {model}, {dtype}: examples per second\n")
        heads = [NAMES["plain"], *OURS, *(NAMES[peer] for peer in peers)]
        _row("length", "batch", *heads)
        _row("--:", "--:", *["--:"] * len(heads))
        for cell in cells:
            if (cell["model"], cell["dtype"]) == (model, dtype):
                _row(*_speed_row(cell, peers))


def _short(error: str) -> str:
    """For a cell; the whole is in the JSON file."""
    if "can't allocate memory" in error:
        return "out of memory"
    return error if len(error) <= 100 else error[:97] + "..."


def _speed_row(cell, peers):
    times = cell["seconds_per_example"]
    length = f"16-{cell['length']}" if cell["mixed"] else cell["length"]

    def entry(name, above, below):
        """The rate, and the median over rounds of one time over another."""
        if name not in times:
            return _short(cell["errors"][name])
        rate = f"{1 / median(times[name]):.3g}"
        if above not in times or below not in times:
            return rate
        ratios = [a / b for a, b in zip(times[above], times[below], strict=True)]
        return f"{rate} ({median(ratios):.2f}x)"

    yield from (length, cell["batch_size"], entry("plain", "plain", "plain"))
    for name in OURS:
        yield entry(name, name, "plain")
    for name in peers:
        yield entry(name, name, "empirical")


def memory_tables(cells):
    """One table for each model and dtype, MB and as a multiple of plain's."""
    for model, dtype in dict.fromkeys((c["model"], c["dtype"]) for c in cells):
        mine = [c for c in cells if (c["model"], c["dtype"]) == (model, dtype)]
        names = [*mine[0]["peak_bytes"], *mine[0]["errors"]]
        length = mine[0]["length"]
        print(f"\n### {model}, {dtype}, length {length}: memory\n")
        _row("batch", *(NAMES.get(name, name) for name in names))
        _row(*["--:"] * (1 + len(names)))
        for cell in mine:
            _row(cell["batch_size"], *(_memory(cell, name) for name in names))


def _memory(cell, name):
    if name in cell["errors"]:
        return _short(cell["errors"][name])
    beyond = {k: peak - 4 * cell["values"][k] for k, peak in cell["peak_bytes"].items()}
    text = f"{beyond[name] / 1e6:.0f} MB"
    if "plain" not in beyond:
        return text
    return f"{text} ({beyond[name] / beyond['plain']:.2f}x)"


def agreement_table(rows):
    print("\n### Agreement: total relative difference\n")
    _row("model", "Fisher", "reference", "values compared", "difference")
    _row("---", "---", "---", "--:", "--:")
    for row in rows:
        if "error" in row:
            result = ("", _short(row["error"]))
        else:
            result = (f"{row['values']:,}", f"{row['difference']:.1e}")
        names = (
            f"{NAMES.get(name, name)}, {dtype}"
            for name, dtype in (row["fisher"], row["reference"])
        )
        _row(row["model"], *names, *result)


def _row(*entries):
    print("|", " | ".join(str(entry) for entry in entries), "|")
