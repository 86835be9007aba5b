"""Accuracy against latency as a self-contained SVG, drawn by hand: one point a method.

Coordinates are pixels; x is the whole answer's milliseconds (logarithmic where methods differ by
much), y the accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

INK, MUTED, GRID, PAPER = "#1f2933", "#7b8794", "#e4e7eb", "#ffffff"
COLOURS = (
    "#0b69a3",
    "#c0266d",
    "#2d9c5a",
    "#b7791f",
    "#6b46c1",
    "#d64545",
    "#0f8a8a",
    "#52606d",
)
WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 690, 56, 380
LABEL_HEIGHT = 15
#: From this ratio of latencies on the axis is logarithmic.
LOG_RATIO = 4.0


@dataclass(frozen=True)
class Point:
    """A method's place and error bars, in pixels."""

    name: str
    colour: str
    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float


def accuracy_latency_svg(title: str, methods: dict[str, dict[str, Any]]) -> str:
    """A plot of methods, each with `final` (accuracy) and `latency.answer_ms` as spreads."""
    times = [row["latency"]["answer_ms"] for row in methods.values()]
    ticks, scale_x, kind = x_axis(min(t["low"] for t in times), max(t["high"] for t in times))
    points = []
    for number, (name, row) in enumerate(methods.items()):
        time, right = row["latency"]["answer_ms"], row["final"]
        points.append(
            Point(
                name,
                COLOURS[number % len(COLOURS)],
                *(scale_x(time["mean"]), _scale_y(right["mean"])),
                *(scale_x(max(time["low"], 1e-9)), scale_x(time["high"])),
                *(_scale_y(right["low"]), _scale_y(right["high"])),
            )
        )
    parts = [
        _rect(0, 0, WIDTH, HEIGHT, PAPER),
        _text(LEFT, 30, f"{title}: accuracy against latency", 16, "start"),
        *_grid(ticks, scale_x),
        _text((LEFT + RIGHT) / 2, HEIGHT - 18, f"whole answer, ms{kind}", 12, fill=MUTED),
        _text(LEFT, TOP - 8, "accuracy %", 12, "start", MUTED),
        *(part for point in points for part in _mark(point)),
        *_labels(points),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{escape(title)}: accuracy against latency" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif">'
    )
    return "\n".join([head, *parts, "</svg>\n"])


def x_axis(low: float, high: float) -> tuple[list[float], Callable[[float], float], str]:
    """Ticks at round numbers, milliseconds to pixels, and what to say of the axis."""
    if high / low >= LOG_RATIO:
        first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high))
        ticks = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
        start = max(t for t in ticks if t <= low * 0.95)
        end = min(t for t in [*ticks, 10.0 ** (last + 1)] if t >= high * 1.05)
        ticks = [t for t in ticks if start <= t <= end]
        width = math.log(end / start)
        return ticks, lambda v: LEFT + (RIGHT - LEFT) * math.log(v / start) / width, ", log scale"
    step = 10.0 ** math.floor(math.log10(high))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if high * 1.1 / s <= 8)
    count = math.ceil(high * 1.1 / step)
    return (
        [i * step for i in range(count + 1)],
        lambda v: LEFT + (RIGHT - LEFT) * v / (count * step),
        "",
    )


def _scale_y(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def _grid(ticks: list[float], scale_x: Callable[[float], float]) -> list[str]:
    parts = []
    for percent in range(0, 101, 20):
        y = _scale_y(percent / 100)
        parts.append(_line(LEFT, y, RIGHT, y, GRID))
        parts.append(_text(LEFT - 8, y + 4, str(percent), 11, "end", MUTED))
    for tick in ticks:
        x = scale_x(tick)
        parts.append(_line(x, TOP, x, BOTTOM, GRID))
        parts.append(_text(x, BOTTOM + 18, f"{tick:g}", 11, fill=MUTED))
    return [*parts, _line(LEFT, BOTTOM, RIGHT, BOTTOM, INK)]


def _mark(point: Point) -> list[str]:
    return [
        _line(point.x, point.y_low, point.x, point.y_high, point.colour, 1.5),
        _line(point.x_low, point.y, point.x_high, point.y, point.colour, 1.5),
        f'<circle cx="{point.x:.1f}" cy="{point.y:.1f}" r="5" fill="{point.colour}" '
        f'stroke="{PAPER}" stroke-width="1.5"/>',
    ]


def _labels(points: list[Point]) -> list[str]:
    """Names beside their points: where several crowd, each is pushed off those already placed."""
    parts: list[str] = []
    placed: list[tuple[float, float, float]] = []  # left, right, baseline
    for point in sorted(points, key=lambda p: (p.y, p.x)):
        width = 7.2 * len(point.name)
        left_side = point.x + 10 + width > WIDTH - 4
        start = point.x - 10 - width if left_side else point.x + 10
        taken = [
            *((a, b, y) for a, b, y in placed if a < start + width and b > start),
            *((p.x - 6, p.x + 6, p.y + 4) for p in points if start - 6 < p.x < start + width + 6),
        ]
        baseline = _free(point.y + 4, [y for _, _, y in taken])
        placed.append((start, start + width, baseline))
        if abs(baseline - point.y - 4) > LABEL_HEIGHT:
            end = start + width + 2 if left_side else start - 2
            parts.append(_line(point.x, point.y, end, baseline - 4, point.colour, 0.7))
        parts.append(_text(start, baseline, point.name, 12, "start", point.colour))
    return parts


def _free(wanted: float, taken: list[float]) -> float:
    """The baseline nearest to the wanted one that keeps clear of the taken ones, on the paper."""
    offsets = sorted((i * 4.0 for i in range(-60, 61)), key=abs)
    for offset in offsets:
        y = wanted + offset
        if TOP - 2 < y < BOTTOM - 2 and all(abs(y - other) >= LABEL_HEIGHT for other in taken):
            return y
    return wanted


def _text(
    x: float, y: float, content: str, size: int, anchor: str = "middle", fill: str = INK
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {place}>{escape(content)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"/>'
