"""Names next to the points of a scatter plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Bbox

# Places to try, nearest first: offset in points, and the text's alignment.
_Place = tuple[float, float, Literal["left", "right"]]
_PLACES: list[_Place] = [
    (sign * x, y, "left" if sign > 0 else "right")
    for y in (0, *(sign * step for step in range(8, 80, 8) for sign in (1, -1)))
    for x in (7, 16)
    for sign in (1, -1)
]
_GAP = 3  # points between names in a line, so that two do not read as one
_PASSES = 3  # a name can give way to those placed after it
_ORDERS = 8  # of placing names, until nothing is covered


class _Label(NamedTuple):
    place: _Place
    box: Bbox  # of the name, in pixels
    leader: Path | None  # to a name that is not next to its own point


def label_points(
    axis: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    spreads: Sequence[float],
) -> None:
    """Writes each name in the axes, or right of the last ones, where it covers no other
    name, point or error bar; a thin line leads to a name that is not next to its own
    point, or is as near to another one."""
    figure = axis.figure
    assert isinstance(figure, Figure) and isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()  # the final place of the axes
    renderer = figure.canvas.get_renderer()
    room = axis.get_window_extent(renderer)
    if axis is figure.axes[-1]:
        room = Bbox.from_extents(*room.min, figure.bbox.x1, room.y1)
    pixels = figure.dpi / 72
    centres = axis.transData.transform(points)
    marks = []
    for (x, y), spread in zip(points, spreads, strict=True):
        ends = axis.transData.transform([(x, y - spread), (x, y + spread)])
        marks.append(Bbox([ends[0] - 4 * pixels, ends[1] + 4 * pixels]))
    notes = [
        axis.annotate(
            name,
            point,
            (0, 0),
            textcoords="offset points",
            size=8,
            va="center",
            in_layout=False,
        )
        for point, name in zip(points, names, strict=True)
    ]
    sizes = [note.get_window_extent(renderer).size for note in notes]
    tried = [_labels(centres, n, size, pixels) for n, size in enumerate(sizes)]
    found = []
    for first in range(min(_ORDERS, len(notes))):
        order = [*range(first, len(notes)), *range(first)]
        found.append(_arranged(order, tried, marks, room, pixels))
        if found[-1][0] == 0:
            break
    _, labels = min(found, key=lambda pair: pair[0])
    for number, label in labels.items():
        x, y, side = label.place
        notes[number].set_position((x, y))
        notes[number].set_horizontalalignment(side)
        if label.leader is not None:
            colour = notes[number].get_color()
            axis.annotate(
                "",
                points[number],
                (x, y),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": colour},
                in_layout=False,
            )


def _arranged(
    order: list[int],
    tried: list[list[_Label]],
    marks: list[Bbox],
    room: Bbox,
    pixels: float,
) -> tuple[float, dict[int, _Label]]:
    """Places one name after the other; the cost of all, and the place of each."""
    labels: dict[int, _Label] = {}
    costs = dict.fromkeys(order, 0.0)
    for number in order * _PASSES:
        others = [label for n, label in labels.items() if n != number]
        best = None
        for label in tried[number]:
            cost = _cost(label, others, marks, number, room, pixels)
            if best is None or cost < best:
                best, labels[number], costs[number] = cost, label, cost
            if cost == 0:
                break  # the others are further away
    return sum(costs.values()), labels


def _labels(
    centres: numpy.ndarray, number: int, size: tuple[float, float], pixels: float
) -> list[_Label]:
    """A point's name in all places."""
    width, height = size
    found = []
    for place in _PLACES:
        x, y, side = place
        end = centres[number] + numpy.array([x, y]) * pixels
        left = end[0] if side == "left" else end[0] - width
        box = Bbox.from_bounds(left, end[1] - height / 2, width, height)
        near = abs(y) <= 8 and _is_nearest(box, centres, number)
        leader = None if near else Path([centres[number], end])
        found.append(_Label(place, box, leader))
    return found


def _cost(
    label: _Label,
    others: list[_Label],
    marks: list[Bbox],
    number: int,
    room: Bbox,
    pixels: float,
) -> float:
    """0 for a name in the room that covers nothing, to which no line leads through
    others."""
    box, leader = label.box, label.leader
    inside = room.x0 <= box.x0 and box.x1 <= room.x1
    inside = inside and room.y0 <= box.y0 and box.y1 <= room.y1
    wide = box.expanded(1 + 2 * _GAP * pixels / box.width, 1.05)
    cost = 20 * (not inside) + 3 * sum(box.overlaps(mark) for mark in marks)
    cost += 3 * sum(wide.overlaps(other.box) for other in others)
    lines = [other.leader for other in others if other.leader is not None]
    cost += sum(line.intersects_bbox(box) for line in lines)
    if leader is not None:
        covered = [*marks[:number], *marks[number + 1 :]]
        covered += [other.box for other in others]
        cost += sum(leader.intersects_bbox(other) for other in covered)
        cost += sum(leader.intersects_path(line) for line in lines)
    return cost


def _is_nearest(box: Bbox, centres: numpy.ndarray, number: int) -> bool:
    """Whether the point of this number is clearly the nearest to the box."""
    nearest = numpy.clip(centres, box.min, box.max)
    distances = numpy.hypot(*(centres - nearest).T)
    return bool((numpy.delete(distances, number) > 1.3 * distances[number]).all())
