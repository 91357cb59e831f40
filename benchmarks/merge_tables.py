"""The measurements of merges as Markdown."""

from statistics import median


def print_merges(cells):
    """Those of one model and dtype."""
    if not cells:
        return
    print(f"\n## {cells[0]['model']}, {cells[0]['dtype']}\n")
    _row(
        *("method", "contestant", "seconds", "/ floor", "/ Merganser"),
        *("peak memory", "difference"),
    )
    _row("---", "---", *["--:"] * 5)
    for cell in cells:
        title = cell["method"] + (", from disk" if cell["from_disk"] else "")
        for name in cell["seconds"]:
            _row(title, name, *_entries(cell, name))
            title = ""


def _entries(cell, name):
    times = cell["seconds"]
    if name in cell["errors"]:
        return cell["errors"][name], "", "", "", ""

    def ratio(reference):
        """The median over rounds."""
        if reference in cell["errors"]:
            return ""
        pairs = zip(times[name], times[reference], strict=True)
        return f"{median(a / b for a, b in pairs):.2f}x"

    difference = cell["differences"].get(name)
    return (
        f"{median(times[name]):.3f}",
        ratio("floor"),
        ratio("merganser"),
        f"{cell['peak_bytes'][name] / 2**20:.0f} MiB",
        "" if difference is None else f"{difference:.1e}",
    )


def print_memory(rows):
    """Peak memory of merges, beyond that of `merganser --version`."""
    print("\n## Memory\n")
    _row("model", "dtype", "method", "--memory", "peak", "beyond merganser --version")
    _row("---", "---", "---", "--:", "--:", "--:")
    for row in rows:
        peak, idle = row["peak_bytes"] / 2**20, row["version_peak_bytes"] / 2**20
        what = (row[key] for key in ("model", "dtype", "method", "budget"))
        _row(*what, f"{peak:.0f} MiB", f"{peak - idle:.0f} MiB")


def print_plan(rows):
    print("\n## Plan\n")
    _row("model", "tensors", "to read", "seconds", "peak memory that it states")
    _row("---", "--:", "--:", "--:", "--:")
    for row in rows:
        _row(
            row["model"],
            row["tensors"],
            f"{row['bytes_read'] / 1e9:.0f} GB",
            f"{median(row['seconds']):.3f}",
            f"{row['peak_memory'] / 2**20:.1f} MiB",
        )


def _row(*entries):
    print("|", " | ".join(str(entry) for entry in entries), "|", flush=True)
