"""Accuracy against latency: one point a method, hollow for controls, with error bars and names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rim.report.comparison import KINDS
from rim.report.style import MUTED, PAPER, Mark, method_marks, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: From this ratio of latencies on the axis is logarithmic.
LOG_RATIO = 4.0

# Lengths of what follows are points, 1/72 inch.
#: Half a marker and half a bar, both with some air; and what names keep from axes and edges.
REACH, THIN, AIR = 6.0, 2.5, 4.0
#: A name further than this from its point is tied to it by a line.
TIED_FROM = 10.0
#: How much further a name may stand for each thing that its tie does not cross then.
CROSSING = 40.0

Place = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top


def accuracy_latency_svg(title: str, methods: dict[str, dict[str, Any]]) -> str:
    """A plot of methods, each with `final` (accuracy) and `latency.answer_ms` as spreads."""
    name = f"{title}: accuracy against latency"
    return render(lambda figure: draw(figure, name, methods), (7.6, 4.8), name).decode()


def draw(figure: Figure, title: str, methods: dict[str, dict[str, Any]]) -> None:
    """The plot on an empty figure; see `accuracy_latency_svg`."""
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.09, right=0.97, top=0.91, bottom=0.185)
    times = [row["latency"]["answer_ms"] for row in methods.values()]
    scale = latency_axis(axes, min(t["low"] for t in times), max(t["high"] for t in times))
    axes.set_ylim(0, 105)
    axes.set_yticks(range(0, 101, 20))
    axes.set(title=title, xlabel=f"time to the whole answer, ms{scale}", ylabel="accuracy, %")
    marks = method_marks(methods)
    for name, row in methods.items():
        time, right, mark = row["latency"]["answer_ms"], row["final"], marks[name]
        hollow = bool(row.get("control_of"))
        axes.errorbar(
            time["mean"],
            100 * right["mean"],
            xerr=_bars(time),
            yerr=_bars(right, 100),
            fmt=mark.marker,
            color=mark.colour,
            markerfacecolor=PAPER if hollow else mark.colour,
            markeredgecolor=mark.colour if hollow else PAPER,
            markeredgewidth=1.6 if hollow else 0.8,
            markersize=7 if hollow else 8,
            elinewidth=1.4,
            clip_on=False,
        )
    figure.text(0.09, 0.03, _caption(methods), color=MUTED, fontsize=8.5)
    _write_names(axes, methods, marks)


def latency_axis(axes: Axes, low: float, high: float) -> str:
    """Scale, limits and round ticks of the axis of milliseconds; what to say of the scale."""
    if high / low < LOG_RATIO:
        axes.set_xlim(0, 1.15 * high)
        return ""
    axes.set_xscale("log")
    axes.set_xlim(low / 1.2, 1.2 * high)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    ticks = [tick for tick in ticks if low / 1.2 <= tick <= 1.2 * high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    return " (log scale)"


def _bars(spread: dict[str, Any], times: float = 1.0) -> list[list[float]]:
    mean, low, high = (times * spread[key] for key in ("mean", "low", "high"))
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]]


def _caption(methods: dict[str, dict[str, Any]]) -> str:
    kinds = {row["final"]["kind"] for row in methods.values()}
    parts = [f"Bars: {KINDS[kind]}." for kind in sorted(kinds)]
    if any(row.get("control_of") for row in methods.values()):
        parts.append("Hollow: trained as a control.")
    return " ".join(parts)


# --- names beside their points -------------------------------------------------------------------


def _write_names(axes: Axes, methods: dict[str, dict[str, Any]], marks: dict[str, Mark]) -> None:
    """A name beside each point, clear of all points, bars, other names and the frame."""
    figure: Any = axes.get_figure(root=True)
    unit = figure.dpi / 72

    def point(time: float, share: float) -> Place:
        x, y = axes.transData.transform((max(time, 1e-9), 100 * share)) / unit
        return x, y

    renderer = figure.canvas.get_renderer()
    points: dict[str, Place] = {}
    drawn: dict[str, list[Box]] = {}
    for name, row in methods.items():
        time, right = row["latency"]["answer_ms"], row["final"]
        x, y = points[name] = point(time["mean"], right["mean"])
        left, bottom = point(time["low"], right["low"])
        end, top = point(time["high"], right["high"])
        drawn[name] = [
            (x - REACH, y - REACH, x + REACH, y + REACH),
            (left - THIN, y - THIN, end + THIN, y + THIN),
            (x - THIN, bottom - THIN, x + THIN, top + THIN),
        ]
    frame = axes.get_window_extent(renderer)
    paper: Box = (
        *(frame.x0 / unit + AIR, frame.y0 / unit + AIR),
        *(figure.bbox.x1 / unit - AIR, frame.y1 / unit),
    )
    for name in sorted(points, key=lambda n: (-points[n][1], points[n][0])):
        text = axes.annotate(
            name,
            (methods[name]["latency"]["answer_ms"]["mean"], 100 * methods[name]["final"]["mean"]),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=9.5,
            va="center",
            annotation_clip=False,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5},  # over the grid
            zorder=1.2,
        )
        size = text.get_window_extent(renderer)
        others = [box for other in drawn if other != name for box in drawn[other]]
        extent = size.width / unit, size.height / unit
        box = free_box(points[name], *extent, drawn[name], others, paper)
        drawn[name].append(box)
        (x, y), near = points[name], _nearest(points[name], box)
        text.set_position((box[0] - x, (box[1] + box[3]) / 2 - y))
        if math.dist((x, y), near) > TIED_FROM:
            ends = axes.transData.inverted().transform(
                [(unit * x, unit * y), (unit * near[0], unit * near[1])]
            )
            axes.plot(*ends.T, color=marks[name].colour, linewidth=0.8, zorder=1.5)
            drawn[name] += _samples((x, y), near)


def free_box(
    point: Place,
    width: float,
    height: float,
    own: Sequence[Box],
    others: Sequence[Box],
    paper: Box,
) -> Box:
    """The box of this size that is on the paper, overlaps nothing, and is nearest to the point.

    A tie that crosses what is not the point's own counts as far: drawn only if need be.
    """

    def cost(box: Box) -> float:
        tie = _samples(point, _nearest(point, box))
        crossed = sum(any(_overlap(piece, other) for piece in tie) for other in others)
        beside = 0.0 if box[0] > point[0] else 0.5  # rather right of its point
        return math.dist(point, _nearest(point, box)) + beside + CROSSING * crossed

    boxes = list(_candidates(point, width, height))
    free = [
        box
        for box in boxes
        if _within(box, paper) and not any(_overlap(box, other) for other in (*own, *others))
    ]
    return min(free or boxes, key=cost)


def _candidates(point: Place, width: float, height: float) -> Iterator[Box]:
    """Boxes right of the point, left of it, and above or below it."""
    x, y = point
    for step in range(-30, 31):
        bottom = y - height / 2 + 5.0 * step
        for gap in (8.0, 16.0, 28.0, 48.0):
            yield x + gap, bottom, x + gap + width, bottom + height
            yield x - gap - width, bottom, x - gap, bottom + height
        yield x - width / 2, bottom, x + width / 2, bottom + height


def _nearest(point: Place, box: Box) -> Place:
    """The place in a box that is nearest to a point."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _samples(start: Place, end: Place) -> list[Box]:
    """A line as small boxes, without the piece that its point's marker covers."""
    length = math.dist(start, end)
    shares = [i / 12 for i in range(13) if i / 12 * length > REACH]
    places = [tuple(a + t * (b - a) for a, b in zip(start, end, strict=True)) for t in shares]
    return [(x - 1, y - 1, x + 1, y + 1) for x, y in places]


def _within(box: Box, paper: Box) -> bool:
    low = paper[0] <= box[0] and paper[1] <= box[1]
    return low and box[2] <= paper[2] and box[3] <= paper[3]


def _overlap(one: Box, other: Box) -> bool:
    apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    return not apart
