"""The causal protocols' results as heat maps: parts of the cache by layers, one map a step or a
question asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rim.report.charts import heat_maps, standalone


@dataclass(frozen=True)
class Panel:
    """Shares from 0 to 1 (None: nothing measured), by row and column."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    shares: Sequence[Sequence[float | None]]


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
    names = {"question": "question", "blocks": "all blocks", "everything": "question, blocks"}
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


def protocol_chart(result: dict[str, Any], title: str) -> str | None:
    """The picture of a protocol's result for a page; None where it has no map."""
    draw = {"interchange": interchange_panels, "transplant": transplant_panels}
    panels = draw[result["protocol"]](result) if result["protocol"] in draw else []
    if not panels:
        return None
    return heat_maps(
        [(panel.title, panel.shares) for panel in panels],
        title,
        rows=panels[0].rows,
        columns=panels[0].columns,
        xlabel="layers" if result["protocol"] == "interchange" else "what of it",
        ylabel="",
    )


def protocol_svg(result: dict[str, Any], title: str) -> str | None:
    """The picture of `protocol_chart` as a file of its own."""
    chart = protocol_chart(result, title)
    return None if chart is None else standalone(chart)
