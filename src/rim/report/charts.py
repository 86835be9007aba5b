"""Charts of the report as inline SVG whose ink, paper and grid are the page's own (light or dark).

matplotlib draws; afterwards its fixed neutral colours become CSS variables. Data colours are those
of `rim.report.style`, told apart with any colour vision, and no chart says anything by colour
alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rim.report.style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    METHOD_COLOURS,
    MUTED,
    ORANGE,
    PAPER,
    PINK,
    SKY,
    VERMILION,
    WINE,
    render,
)
from rim.report.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = (BLUE, VERMILION, GREEN, ORANGE, PINK, SKY, WINE, METHOD_COLOURS["direct"])
DASHES = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1, 1, 1)),
    (0, (1, 1)),
    (0, (7, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper"}
_GROUND = "--page"
#: Text on cells of a heat map; no variable, for the cells keep their colours in the dark.
_DARK_TEXT, _LIGHT_TEXT = "#101820", "#fdfdfd"


def themed(svg: str, label: str) -> str:
    """An SVG document as an element of the page, its neutral colours variables, read aloud as
    `label`.
    """
    element = printable(svg[svg.index("<svg") :])  # names of others, as everywhere on the page
    element = re.sub(r"<metadata>.*?</metadata>", "", element, count=1, flags=re.DOTALL)
    element = re.sub(r"<title>.*?</title>", "", element, count=1, flags=re.DOTALL)
    # Groups' own numbers are the same in every chart, and an id stands for one thing.
    element = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", element)
    # The figure's own ground comes first; the page shows through, so that shadows of its edges do.
    element = element.replace(f"fill: {PAPER}", f"fill: var({_GROUND})", 1)
    for colour, variable in _VARIABLES.items():
        element = element.replace(colour, f"var({variable})")
    attributes = f'role="img" aria-label="{escape(printable(label), quote=True)}" class="chart" '
    return element.replace("<svg ", f"<svg {attributes}", 1)


def standalone(element: str) -> str:
    """A themed chart as a file of its own, on white paper."""
    variables = [*_VARIABLES.items(), (PAPER, _GROUND)]
    for colour, variable in variables:
        element = element.replace(f"var({variable})", colour)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + element


def chart(draw: Callable[[Figure], None], size: tuple[float, float], label: str) -> str:
    with warnings.catch_warnings():
        # The reader's browser writes the text, with fonts of its own.
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        return themed(render(draw, size, label).decode(), label)


Line = Mapping[str, Any]  # name, x, y, and perhaps low, high, colour


def lines_chart(
    lines: Sequence[Line],
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    size: tuple[float, float] = (7.0, 3.6),
    percent: bool = True,
    whole: bool = False,
    diagonal: bool = False,
) -> str:
    """Lines with markers and, where given, bands.

    Args:
        whole: x has whole numbers only.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for i, line in enumerate(lines):
            colour = line.get("colour", SERIES[i % len(SERIES)])
            style = DASHES[i % len(DASHES)]
            many = len(line["x"]) > 30
            axes.plot(
                line["x"],
                line["y"],
                color=colour,
                linestyle=style,
                marker=None if many else MARKS[i % len(MARKS)],
                markersize=5,
                linewidth=1.8,
                label=line["name"],
                clip_on=not percent or many,
            )
            if "low" in line:
                axes.fill_between(line["x"], line["low"], line["high"], color=colour, alpha=0.15)
        if diagonal:
            axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8)
        if percent:
            axes.set_ylim(0, 103)
        if whole:
            ticks = sorted({x for line in lines for x in line["x"]})
            axes.set_xticks(ticks if len(ticks) <= 16 else ticks[:: len(ticks) // 12])
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if len(lines) > 1:
            _legend(axes, below=0.17)
        figure.tight_layout()

    return chart(draw, _taller(size, len(lines)), f"{title}: {ylabel} by {xlabel}")


def _legend(axes: Axes, *, below: float | None = None) -> None:
    """Under the axes, so many of their heights below, where a narrow screen shows it first; else
    beside them.
    """
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
    if below is not None:
        place = {"loc": "upper left", "bbox_to_anchor": (-0.02, -below), "ncols": 2}
    axes.legend(fontsize=8.5, **place).set_in_layout(True)


def _taller(size: tuple[float, float], entries: int) -> tuple[float, float]:
    """Room for a legend of two columns under a chart."""
    return size[0], size[1] + (0.21 * -(-entries // 2) if entries > 1 else 0.0)


def bars_chart(
    groups: Sequence[str],
    series: Sequence[Line],
    title: str,
    xlabel: str,
    *,
    ylabel: str = "accuracy, %",
    size: tuple[float, float] = (7.0, 3.6),
) -> str:
    """Per cent in groups of bars; series have `y`, and perhaps `low` and `high`."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        width = 0.8 / len(series)
        for i, line in enumerate(series):
            xs = [g + (i - (len(series) - 1) / 2) * width for g in range(len(groups))]
            ys = [y if y is not None else 0 for y in line["y"]]
            axes.bar(
                xs,
                ys,
                0.92 * width,
                color=line.get("colour", SERIES[i % len(SERIES)]),
                hatch=("", "//", "..", "xx", "\\\\", "++", "oo", "--")[i % 8],
                edgecolor=PAPER,
                linewidth=0.5,
                label=line["name"],
            )
            if "low" in line:
                below = [max(0.0, y - low) for y, low in zip(ys, line["low"], strict=True)]
                above = [max(0.0, high - y) for y, high in zip(ys, line["high"], strict=True)]
                axes.errorbar(xs, ys, yerr=[below, above], fmt="none", ecolor=INK, elinewidth=1)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylim(0, 103)
        axes.grid(axis="x", visible=False)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if len(series) > 1:
            lines = max(name.count("\n") for name in groups) + 1
            _legend(axes, below=0.12 + 0.055 * lines)
        figure.tight_layout()

    return chart(draw, _taller(size, len(series)), f"{title}: {ylabel} by {xlabel}")


def heat_maps(
    maps: Sequence[tuple[str, Sequence[Sequence[float | None]]]],
    title: str,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    xlabel: str,
    ylabel: str,
    low: float = 0.0,
    high: float = 1.0,
    per_cent: bool = True,
) -> str:
    """Maps beside each other on one scale, a number in every cell that has room for it."""
    import numpy as np

    across = min(len(maps), 2)
    down = -(-len(maps) // across)
    cells = len(columns)
    size = (max(3.4, 0.42 * cells + 1.0) * across, (0.36 * len(rows) + 1.1) * down + 0.35)

    def draw(figure: Figure) -> None:
        for number, (name, values) in enumerate(maps):
            axes = figure.add_subplot(down, across, number + 1)
            table = np.array([[np.nan if v is None else v for v in row] for row in values], float)
            axes.pcolormesh(
                np.ma.masked_invalid(table),
                cmap="cividis",
                vmin=low,
                vmax=high,
                edgecolors=PAPER,
                linewidth=0.6,
            )
            axes.invert_yaxis()
            axes.grid(visible=False)
            axes.set_xticks([i + 0.5 for i in range(len(columns))], columns, fontsize=7.5)
            axes.set_yticks([i + 0.5 for i in range(len(rows))], rows, fontsize=7.5)
            if max(map(len, columns)) > 3:
                axes.tick_params(axis="x", labelrotation=45)
                for tick in axes.get_xticklabels():
                    tick.set_horizontalalignment("right")
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
            axes.set_title(name, fontsize=9.5)
            axes.set_xlabel(xlabel if number >= len(maps) - across else "", fontsize=8.5)
            axes.set_ylabel(ylabel if number % across == 0 else "", fontsize=8.5)
            for (r, c), value in np.ndenumerate(table):
                if not np.isnan(value):
                    dark = (value - low) > 0.55 * (high - low)
                    text = f"{100 * value:.0f}" if per_cent else f"{value:.0f}"
                    colour = _DARK_TEXT if dark else _LIGHT_TEXT
                    axes.text(
                        c + 0.5, r + 0.5, text, ha="center", va="center", fontsize=7, color=colour
                    )
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.tight_layout()

    return chart(draw, size, f"{title}: {', '.join(name for name, _ in maps)}")


def scatter_panels(
    panels: Sequence[Mapping[str, Any]], title: str, *, across: int | None = None
) -> str:
    """Principal components; a colour and a marker for every block. A panel's name is its `title`,
    or its layer.

    Args:
        across: panels a row, all of which then share their axes; all in one row if left out.
    """
    columns = across or len(panels)
    down = -(-len(panels) // columns)

    def draw(figure: Figure) -> None:
        one: Axes | None = None
        for number, panel in enumerate(panels, 1):
            first_of_row = (number - 1) % columns == 0
            shared = {} if across is None or one is None else {"sharex": one, "sharey": one}
            axes = figure.add_subplot(down, columns, number, **shared)
            one = one or axes
            for block, points in enumerate(panel["points"]):
                axes.scatter(
                    [p[0] for p in points],
                    [p[1] for p in points],
                    s=11,
                    alpha=0.75,
                    linewidths=0,
                    color=SERIES[block % len(SERIES)],
                    marker=MARKS[block % len(MARKS)],
                    label=f"block {block + 1}",
                )
            first, second = (100 * share for share in panel["explained"])
            axes.set_title(panel.get("title", f"layer {panel['layer']}"), fontsize=9.5)
            axes.set_xlabel(f"1st component ({first:.0f} %)", fontsize=8.5)
            axes.set_ylabel(f"2nd ({second:.0f} %)" if first_of_row else "", fontsize=8.5)
            axes.tick_params(labelsize=7)
            if number == columns:
                _legend(axes)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.tight_layout()

    return chart(draw, (3.0 * columns + 0.9, 2.9 * down + 0.4), title)
