"""Learning curves: of a run over its stages, from metrics.jsonl; of a comparison's methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rim.report.charts import chart, lines_chart, standalone
from rim.report.style import BLUE, MUTED, VERMILION, method_marks
from rim.report.text import json_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Key of a metrics record: label and colour.
LOSSES = {"token_loss": ("training", MUTED), "eval_token_loss": ("validation", VERMILION)}
ACCURACY = "eval_accuracy"
Points = list[tuple[float, float]]
Curves = tuple[dict[str, Points], list[tuple[str, int]]]


def read_curves(metrics: Path, problems: list[str] | None = None) -> Curves:
    """Values by metric, over the steps of all stages in a row; name and last step of each stage.

    A resumed run writes the steps since its checkpoint again: the last word counts.

    Args:
        problems: is told of lines that are none, such as the torn one of a process that was killed.
    """
    values: dict[tuple[str, str, int], float] = {}
    last: dict[str, int] = {}
    for record in json_lines(metrics, [] if problems is None else problems):
        stage, step = record.get("stage"), record.get("step")
        if not isinstance(stage, str) or not isinstance(step, int):
            continue
        last[stage] = max(step, last.get(stage, 0))
        for name in (*LOSSES, ACCURACY):
            if isinstance(value := record.get(name), float):
                values[name, stage, step] = value
    begins, done = {}, 0
    for stage, steps in last.items():
        begins[stage], done = done, done + steps
    curves: dict[str, Points] = {}
    for (name, stage, step), value in sorted(values.items(), key=lambda item: item[0][2]):
        curves.setdefault(name, []).append((begins[stage] + step, value))
    ends = [(stage, begins[stage] + steps) for stage, steps in last.items()]
    return {name: sorted(points) for name, points in curves.items()}, ends


def curves_chart(title: str, curves: Curves) -> str | None:
    """A run's losses and validation accuracy as an element of a page; None as long as there is
    nothing to draw.
    """
    values, ends = curves
    if not values:
        return None
    return chart(lambda figure: _draw(figure, title, values, ends), (7.6, 5.2), title)


def curves_svg(run: str, metrics: Path) -> str | None:
    """The picture of `curves_chart` as a file of its own."""
    element = curves_chart(f"{run}: learning curves", read_curves(metrics))
    return None if element is None else standalone(element)


def learning_chart(task: str, methods: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Validation accuracy while training, a line a method with a band from the lowest seed to the
    highest; None where no result has it. `rim.report.charts.standalone` makes a file of it.
    """
    marks, lines = method_marks(methods), []
    for name, row in methods.items():
        seeds = [dict(map(tuple, each["points"])) for each in row.get("learning") or []]
        steps = sorted(set.intersection(*map(set, seeds))) if seeds else []
        if not steps:
            continue
        shares = [[100 * seed[step] for seed in seeds] for step in steps]
        line = {"name": name, "x": steps, "y": [sum(s) / len(s) for s in shares]}
        if len(seeds) > 1:
            line |= {"low": [min(s) for s in shares], "high": [max(s) for s in shares]}
        lines.append(line | {"colour": marks[name].colour})
    if not lines:
        return None
    title = f"{task}: learning"
    return lines_chart(lines, title, "optimizer step", "validation accuracy, %", size=(7.6, 4.2))


def _draw(
    figure: Figure, title: str, curves: dict[str, Points], ends: list[tuple[str, int]]
) -> None:
    top, bottom = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.1, right=0.97, top=0.9, bottom=0.1, hspace=0.12)
    for name, (label, colour) in LOSSES.items():
        if name in curves:
            _line(top, curves[name], colour, label, marked=name.startswith("eval"))
    top.set(title=title, ylabel="loss a token, nats")
    if top.lines:
        top.legend(loc="upper right", fontsize=9)
    accuracy = [(step, 100 * share) for step, share in curves.get(ACCURACY, [])]
    _line(bottom, accuracy, BLUE, "validation", marked=True)
    bottom.set(xlabel="optimizer step", ylabel="validation accuracy, %", ylim=(0, 105))
    begin = 0
    for stage, end in ends:
        for axes in (top, bottom):
            if begin:
                axes.axvline(begin, color=MUTED, linewidth=0.8, linestyle=":")
        place = bottom.get_xaxis_transform()
        bottom.text(
            begin, 1.0, f" {stage}", transform=place, va="bottom", fontsize=8.5, color=MUTED
        )
        begin = end
    bottom.set_xlim(0, max(1, begin))


def _line(axes: Axes, points: Points, colour: str, label: str, *, marked: bool) -> None:
    steps, values = [x for x, _ in points], [y for _, y in points]
    marker = "o" if marked else None
    axes.plot(
        steps, values, color=colour, label=label, marker=marker, markersize=4, linewidth=1.4,
        clip_on=not marked,
    )  # fmt: skip
