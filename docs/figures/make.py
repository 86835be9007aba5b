"""Draws the figures of the docs from the library's own code: `python docs/figures/make.py`.

layout.svg    one example's flat sequence and its attention mask, from rim.core.layout and rim.core.masks
schedules.svg lambda and alpha, from rim.core.schedules
"""

from __future__ import annotations

from pathlib import Path

import torch

from rim.core.collate import collate
from rim.core.layout import Readout, build_layout
from rim.core.masks import dense_mask, get_readout_mask_mod
from rim.core.schedules import readout_weights

HERE = Path(__file__).parent
INK, MUTED, PAPER = "#1f2933", "#7b8794", "#ffffff"
COLOURS = {"question": "#cbd2d9", "block": "#f7c948", 0: "#8bc5f0", 1: "#8fdba8", 2: "#e8a5c6"}


def text(
    x: float, y: float, content: str, size: int = 12, anchor: str = "middle", fill: str = INK
) -> str:
    place = f'x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {place}>{content}</text>"


def box(x: float, y: float, width: float, height: float, fill: str, stroke: str = PAPER) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" stroke="{stroke}"/>'
    )


def svg(width: int, height: int, parts: list[str], label: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{label}" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif">'
    )
    return "\n".join([head, box(0, 0, width, height, PAPER), *parts, "</svg>\n"])


def draw_layout() -> str:
    """Question 3+4-5=, two blocks, stage 1: block 1 says 3+4=7, block 2 says 7-5=2 (shortened)."""
    names = ["3", "+", "4", "-5", "=", *["b", "m", "m", "/b"] * 2, "3+4", "=7", "7-5", "=2"]
    ids = {name: i for i, name in enumerate(dict.fromkeys([*names, "end"]))}
    readouts = [
        Readout(1, (ids["3+4"], ids["=7"], ids["end"])),
        Readout(2, (ids["7-5"], ids["=2"], ids["end"])),
    ]
    layout = build_layout([ids[n] for n in names[:5]], [ids[n] for n in names[5:9]], 2, readouts)
    batch = collate([layout])
    mask = dense_mask(
        get_readout_mask_mod(batch["segment_ids"], batch["block_ids"]), 1, len(names), "cpu"
    )[0, 0]
    segments, blocks = batch["segment_ids"][0].tolist(), batch["block_ids"][0].tolist()
    fills = [
        COLOURS[s - 1] if s else COLOURS["block" if b else "question"]
        for s, b in zip(segments, blocks, strict=True)
    ]
    said = {i: name for name, i in ids.items()}
    cell, left, top = 34, 150, 150
    count = len(names)
    parts = [
        text(left, 30, "One forward pass, many read-outs", 17, "start"),
        text(
            left,
            52,
            "rows: what a token may see; columns: tokens in memory order",
            12,
            "start",
            MUTED,
        ),
    ]
    groups = [("question", 0, 5), ("block 1", 5, 9), ("block 2", 9, 13)]
    groups += [("read-out 1", 13, 15), ("read-out 2", 15, 17)]
    for name, start, stop in groups:
        x = left + cell * (start + stop) / 2
        parts.append(text(x, 84, name, 11))
        parts.append(box(left + cell * start + 2, 90, cell * (stop - start) - 4, 2, INK, "none"))
    for i, name in enumerate(names):
        x, y = left + cell * i, top + cell * i
        position = batch["position_ids"][0, i].item()
        parts += [box(x, 98, cell, 26, fills[i]), text(x + cell / 2, 115, name, 11)]
        parts.append(text(x + cell / 2, 140, str(position), 10, fill=MUTED))
        parts += [box(left - 52, y, 48, cell, fills[i]), text(left - 28, y + 19, name, 11)]
        for j in range(count):
            shade = fills[j] if mask[i, j] else "#f0f2f4"
            parts.append(box(left + cell * j, y, cell, cell, shade))
        target = batch["targets"][0, i].item()
        if target >= 0:
            right = left + cell * count + 10
            parts.append(text(right, y + 19, f"predicts {said[target]}", 12, "start"))
    parts.append(text(left - 60, 140, "position", 10, "end", MUTED))
    parts.append(
        text(
            left,
            top + cell * count + 26,
            "Each read-out repeats the positions that follow its block, as at "
            "inference, and never sees the other.",
            12,
            "start",
            MUTED,
        )
    )
    return svg(
        left + cell * count + 130, top + cell * count + 44, parts, "Layout and attention mask"
    )


def draw_schedules() -> str:
    """lambda of four read-outs over stage 1 for the three schedules, and alpha for K = 8."""
    parts = []
    colours = ["#0b69a3", "#2d9c5a", "#c0266d", "#7b8794"]
    kinds = ["anneal_uniform", "anneal_linear", "anneal_relative"]
    for panel, kind in enumerate(kinds):
        left, top, width, height = 50 + panel * 230, 50, 190, 130
        parts.append(text(left + width / 2, 30, kind, 13))
        parts.append(
            f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="{INK}"/>'
        )
        for t in range(4):
            points = []
            for i in range(101):
                weights = readout_weights(
                    kind,
                    torch.tensor([4]),
                    torch.tensor([3]),
                    width=4,
                    max_readouts=6,
                    progress=i / 100,
                )
                points.append(
                    f"{left + width * i / 100:.1f},{top + height * (1 - weights[0, t]):.1f}"
                )
            style = f'fill="none" stroke="{colours[t]}" stroke-width="2"'
            parts.append(f'<polyline points="{" ".join(points)}" {style}/>')
        parts.append(
            text(left + width / 2, top + height + 18, "progress of stage 1", 11, fill=MUTED)
        )
    left, top, width, height = 740, 50, 190, 130
    parts.append(text(left + width / 2, 30, "later_more (alpha), K = 8", 13))
    parts.append(
        f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="{INK}"/>'
    )
    alpha = readout_weights(
        "later_more", torch.tensor([8]), torch.tensor([0]), width=8, max_readouts=8, progress=0
    )[0]
    for k in range(8):
        tall = height * alpha[k].item() / 0.25
        parts.append(box(left + 6 + k * 23, top + height - tall, 18, tall, "#f7c948"))
        parts.append(text(left + 15 + k * 23, top + height + 18, str(k + 1), 11, fill=MUTED))
    for t, name in enumerate(["step 1", "step 2", "step 3", "answer"]):
        parts.append(box(50 + t * 90, 214, 12, 12, colours[t]))
        parts.append(
            text(68 + t * 90, 224, f"says {name}" if t < 3 else "says the answer", 11, "start")
        )
    parts.append(
        text(
            420,
            224,
            "(an example of 4 read-outs; the longest in the data has 6)",
            11,
            "start",
            MUTED,
        )
    )
    return svg(950, 240, parts, "Weights of the read-outs")


if __name__ == "__main__":
    (HERE / "layout.svg").write_text(draw_layout(), encoding="utf-8")
    (HERE / "schedules.svg").write_text(draw_schedules(), encoding="utf-8")
