"""Names next to the points of a scatter plot."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

# Places to try, nearest first: offset in points, and the text's alignment.
_PLACES = [
    (sign * x, y, "left" if sign > 0 else "right")
    for y in (0, *(sign * step for step in range(8, 80, 8) for sign in (1, -1)))
    for x in (7, 16)
    for sign in (1, -1)
]


def label_points(
    axis: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    spreads: Sequence[float],
) -> None:
    """Writes each name in the axes, or right of the last ones, where it covers no other
    name, point or error bar; a thin line leads to a name that is not next to its
    point."""
    figure = axis.figure
    assert isinstance(figure, Figure) and isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()  # the final place of the axes
    renderer = figure.canvas.get_renderer()
    room = axis.get_window_extent(renderer)
    if axis is figure.axes[-1]:
        room = Bbox.from_extents(*room.min, figure.bbox.x1, room.y1)
    radius = 4 * figure.dpi / 72
    taken = []
    for (x, y), spread in zip(points, spreads, strict=True):
        ends = axis.transData.transform([(x, y - spread), (x, y + spread)])
        taken.append(Bbox([ends[0] - radius, ends[1] + radius]))
    for point, name in zip(points, names, strict=True):
        tried = []
        for x, y, side in _PLACES:
            note = axis.annotate(
                name,
                point,
                (x, y),
                textcoords="offset points",
                size=8,
                ha=side,
                va="center",
                in_layout=False,
            )
            box = note.get_window_extent(renderer)
            cost = sum(box.overlaps(other) for other in taken)
            inside = room.x0 <= box.x0 and box.x1 <= room.x1
            inside = inside and room.y0 <= box.y0 and box.y1 <= room.y1
            cost += 10 * (not inside)
            tried.append((cost, len(tried), note, box))
            if cost == 0:
                break
        _, _, note, box = min(tried)
        for *_, other, _ in tried:
            if other is not note:
                other.remove()
        taken.append(box)
        if abs(note.xyann[1]) > 8:
            line = {"arrowstyle": "-", "linewidth": 0.5, "color": note.get_color()}
            axis.annotate(
                "",
                point,
                note.xyann,
                textcoords="offset points",
                arrowprops=line,
                in_layout=False,
            )
