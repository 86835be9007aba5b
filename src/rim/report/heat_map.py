"""Heat maps of the causal protocols: blocks by layers, one panel a step or a question asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rim.report.style import INK, PAPER, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DARK = 0.55  # cells from here on have light text


@dataclass(frozen=True)
class Panel:
    """Shares from 0 to 1 (None: nothing measured), by row (from below) and column."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    shares: Sequence[Sequence[float | None]]


def heat_map_svg(title: str, panels: Sequence[Panel]) -> str:
    """All panels side by side; every cell has its number in per cent."""
    widths = [max(2, len(panel.columns)) for panel in panels]
    size = (1.3 + sum(0.62 * width + 1.0 for width in widths), 1.6 + 0.42 * len(panels[0].rows))
    return render(lambda figure: _draw(figure, title, panels, widths), size, title).decode()


def _draw(figure: Figure, title: str, panels: Sequence[Panel], widths: Sequence[int]) -> None:
    figure.suptitle(title, x=0.02, ha="left", color=INK, fontsize=12)
    places = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axes, panel in zip(places, panels, strict=True):
        numbers = [[-1.0 if s is None else s for s in row] for row in panel.shares]
        axes.imshow(numbers, cmap="Blues", vmin=0, vmax=1, origin="lower", aspect="auto")
        axes.set(title=panel.title)
        axes.set_xticks(range(len(panel.columns)), panel.columns, fontsize=8, rotation=30)
        axes.set_yticks(range(len(panel.rows)), panel.rows, fontsize=8)
        axes.grid(visible=False)
        for y, row in enumerate(panel.shares):
            for x, share in enumerate(row):
                if share is not None:
                    colour = PAPER if share >= _DARK else INK
                    text = f"{100 * share:.0f}"
                    axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=8)
    figure.subplots_adjust(left=0.11, right=0.98, top=0.8, bottom=0.2, wspace=0.45)


def interchange_panels(result: dict[str, Any]) -> list[Panel]:
    """A panel a step of `rim controls --protocol interchange`."""
    panels = []
    for step in result["steps"]:
        cells = {(cell["block"], tuple(cell["layers"])): cell["accuracy"] for cell in step["map"]}
        blocks = sorted({block for block, _ in cells})
        layers = list(dict.fromkeys(layers for _, layers in cells))
        panels.append(
            Panel(
                f"value after step {step['step']}",
                [f"block {block}" for block in blocks],
                [_span(own, max(map(len, layers))) for own in layers],
                [[cells.get((block, own)) for own in layers] for block in blocks],
            )
        )
    return panels


def transplant_panels(result: dict[str, Any]) -> list[Panel]:
    """A panel for the counterfactual answer and one for the source's, of `--protocol transplant`:
    parts whose later columns stay as they are, by band of layers.
    """
    found = [c for c in result["carriers"] if not c["live"]]
    found = [c for c in found if c["part"] in ("question", "block", "blocks", "everything")]
    parts = list(dict.fromkeys((c["part"], c["number"]) for c in found))
    names = {"question": "question", "blocks": "all blocks", "everything": "both"}
    bands = sorted({tuple(c["layers"]) for c in found if c["layers"]})
    columns = ["all", "keys", "values", *(_span(band, -1) for band in bands)]

    def cell(part: tuple[str, int], column: int, kind: str) -> float | None:
        slices = [(True, True, None), (True, False, None), (False, True, None)]
        wanted = slices[column] if column < 3 else (True, True, bands[column - 3])
        for c in found:
            layers = None if c["layers"] is None else tuple(c["layers"])
            if (c["part"], c["number"]) == part and (c["keys"], c["values"], layers) == wanted:
                return c[kind]["accuracy"]
        return None

    return [
        Panel(
            title,
            [names.get(part, f"block {number}") for part, number in parts],
            columns,
            [[cell(part, i, kind) for i in range(len(columns))] for part in parts],
        )
        for title, kind in (
            ("answer follows the value", "counterfactual"),
            ("source's own answer", "source"),
        )
    ]


def _span(layers: Sequence[int], whole: int) -> str:
    if len(layers) == whole:
        return "all"
    first, last = layers[0] + 1, layers[-1] + 1
    return f"layer {first}" if first == last else f"{first}-{last}"


def protocol_svg(result: dict[str, Any], title: str) -> str | None:
    """The picture of a protocol's result; None where it has no map."""
    draw = {"interchange": interchange_panels, "transplant": transplant_panels}
    if result["protocol"] not in draw:
        return None
    panels = draw[result["protocol"]](result)
    return heat_map_svg(title, panels) if panels else None
