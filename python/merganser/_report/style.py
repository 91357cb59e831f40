"""Colours, markers and files that all figures share."""

from __future__ import annotations

import io
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

# Colours by name: in light mode, which image files also have, and in dark mode. Text in
# any of these has a contrast of at least 4.5 on the paper, except in `grid`.
PALETTE = {
    "paper": ("#ffffff", "#15191e"),
    "ink": ("#1d2329", "#e6e9ec"),
    "muted": ("#59626c", "#a3acb6"),
    "grid": ("#dfe3e7", "#333b44"),
    "grey": ("#6c757e", "#959fa9"),
    "blue": ("#2a6fb0", "#6fb1ee"),
    "orange": ("#b35900", "#f0a352"),
    "green": ("#24774f", "#5fc795"),
    "red": ("#bd3326", "#ff8a7d"),
    "purple": ("#7b4bab", "#c29ceb"),
    "teal": ("#0f7480", "#58c2cf"),
    "brown": ("#855a32", "#d3a77c"),
}


def colour(name: str) -> str:
    return PALETTE[name][0]


@dataclass(frozen=True)
class Kind:
    """Look and name of the models of one kind."""

    colour: str
    marker: str
    label: str


KINDS = {
    "base": Kind("grey", "s", "base"),
    "expert": Kind("blue", "^", "expert (one set)"),
    "target": Kind("orange", "D", "target (joint training)"),
    "merge": Kind("green", "o", "merge of the experts"),
    "refined": Kind("purple", "P", "refined merge"),
}
# Lines that differ in dashes and markers, for print in grey.
LINES = [
    {"color": colour(name), "marker": marker, "linestyle": dashes}
    for name, marker, dashes in (
        ("green", "o", "-"),
        ("orange", "s", "--"),
        ("blue", "^", "-."),
        ("purple", "D", ":"),
        ("red", "v", (0, (6, 2))),
        ("teal", "P", (0, (3, 1, 1, 1, 1, 1))),
        ("brown", "X", (0, (1, 3))),
        ("grey", "*", (0, (8, 3, 2, 3))),
    )
]
_SETTINGS: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": colour("muted"),
    "axes.labelcolor": colour("ink"),
    "text.color": colour("ink"),
    "xtick.color": colour("muted"),
    "ytick.color": colour("muted"),
    "xtick.labelcolor": colour("ink"),
    "ytick.labelcolor": colour("ink"),
    "grid.color": colour("grid"),
    "lines.markersize": 5.5,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "svg.fonttype": "none",
}
# Decorator of the functions that draw.
styled = rc_context(_SETTINGS)


def kind_of(model: dict[str, Any]) -> Kind:
    return KINDS.get(model["kind"], KINDS["merge"])


def line(number: int) -> dict[str, Any]:
    return LINES[number % len(LINES)]


def panels(
    count: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with `count` panels of `size` inches side by side, and its axes.

    It belongs to no window and to no state of pyplot; a notebook shows it directly.
    """
    figure = Figure(figsize=(size[0] * count, size[1]), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, count, squeeze=False, **options)[0]


def below(figure: Figure, axis: Axes) -> None:
    """A legend of the axes' lines under the figure, where it covers none of them."""
    handles, labels = axis.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    # An inch holds 14 characters; a marker takes the width of 8.
    fitting = int(14 * figure.get_figwidth() / (max(map(len, entries)) + 8))
    columns = max(1, min(fitting, 4))
    rows = -(-len(entries) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * rows)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=columns,
        fontsize=8.5,
    )


def names_of_hidden(hidden: Sequence[str], inches: float, size: float) -> str:
    """A note on the models that a figure leaves out, in lines of a width in inches at
    a size in points; empty without any."""
    if not hidden:
        return ""
    names = ", ".join(hidden)
    note = f"not shown, hardly better than the most frequent label: {names}"
    # A character is half as wide as high on average, with some room.
    return textwrap.fill(note, int(inches * 72 / (0.55 * size)))


def scale(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis with 1, 2, 5, ... where values span a factor of 5."""
    low, high = min(values), max(values)
    if low <= 0 or high < 5 * low:
        return
    axis.set_xscale("log")
    ticks = [digit * 10.0**power for power in range(-9, 10) for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if 0.8 * low <= tick <= 1.25 * high]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter("{x:g}")


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """The figure, also written to `path`, atomically."""
    if path is not None:
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
        try:
            figure.savefig(temporary, dpi=150)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return figure


def svg(figure: Figure, name: str) -> str:
    """The figure for a page: an <svg> whose colours are the page's variables.

    `name` makes its ids differ from those of other figures on the page.
    """
    buffer = io.StringIO()
    with rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"(font: (?:\d+ )?[\d.]+px) [^;\"]*", r"\1 var(--font)", text)
    for key, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{key})")
    # The page decides on the size.
    return re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
