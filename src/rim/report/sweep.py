"""A study's result to a table and to heat maps: methods by points of the grid and steps."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from rim.report.charts import heat_maps, standalone
from rim.report.tables import table

Cell = dict[str, Any]


def study_tasks(result: dict[str, Any]) -> list[str]:
    """The tasks of a study that have results."""
    return list(dict.fromkeys(cell["task"] for cell in result["cells"]))


def study_rows(result: dict[str, Any], task: str) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of a task's table: a row a method and point, mean accuracy in per cent."""
    cells = _cells(result, task)
    steps = _steps(cells)
    heading = ["method", *_axes(result), *(f"{n} steps" for n in steps), "all", "learned up to"]
    rows = []
    for cell in cells:
        means = {row["steps"]: row["mean"] for row in cell["by_steps"]}
        rows.append(
            [
                cell["method"],
                *(_shown(cell, axis, result) for axis in _axes(result)),
                *(f"{100 * means[n]:.0f}" if n in means else "-" for n in steps),
                f"{100 * cell['final']['mean']:.1f}{_fewer(cell, result)}",
                str(cell["reach"]) if cell["reach"] else "none",
            ]
        )
    return heading, rows


def _fewer(cell: Cell, result: dict[str, Any]) -> str:
    return "" if cell["seeds"] == list(result["seeds"]) else f" ({len(cell['seeds'])})"


def study_tables(result: dict[str, Any]) -> list[Table]:
    """A table for the terminal for every task."""
    tables = []
    for task in study_tasks(result):
        heading, rows = study_rows(result, task)
        made = table(f"{result['name']}, {task}: accuracy %", *heading)
        for row in rows:
            made.add_row(*row)
        tables.append(made)
    return tables


def study_notes(result: dict[str, Any]) -> list[str]:
    """Say in sentences what the numbers are."""
    notes = [
        result["question"],
        f"Means over seeds {', '.join(map(str, result['seeds']))}. Learned up to n: every number "
        f"of steps up to n has at least {100 * result['enough']:.0f} %.",
    ]
    fewer = [cell for cell in result["cells"] if cell["seeds"] != list(result["seeds"])]
    if fewer:
        notes.append(
            f"Of fewer seeds so far, so not to be compared with the others: {len(fewer)} rows, the "
            "number of seeds in brackets behind their accuracy."
        )
    if result["missing"]:
        notes.append(f"Not finished yet: {len(result['missing'])} runs; the same command goes on.")
    return notes


def study_svg(result: dict[str, Any], task: str) -> str | None:
    """A map a method: points of the grid by numbers of steps; None where no question states its
    steps.
    """
    cells = _cells(result, task)
    steps = _steps(cells)
    if not steps:
        return None
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    points = list(dict.fromkeys(_label(cell, result) for cell in cells))
    maps = []
    for method in methods:
        own = {_label(cell, result): cell for cell in cells if cell["method"] == method}
        shares = []
        for point in points:
            means = {r["steps"]: r["mean"] for r in own[point]["by_steps"]} if point in own else {}
            shares.append([means.get(n) for n in steps])
        maps.append((method, shares))
    return standalone(
        heat_maps(
            maps,
            f"{result['name']}, {task}: accuracy, %",
            rows=points,
            columns=[str(n) for n in steps],
            xlabel="steps that the question needs",
            ylabel=", ".join(result["axes"]),
        )
    )


def _cells(result: dict[str, Any], task: str) -> list[Cell]:
    """By method, in the order of the recipe, then by point."""
    found = [cell for cell in result["cells"] if cell["task"] == task]
    order = list(result["settings"]["comparison"]["methods"])
    return sorted(found, key=lambda cell: order.index(cell["method"]))


def _steps(cells: list[Cell]) -> list[int]:
    return sorted({row["steps"] for cell in cells for row in cell["by_steps"]})


def _axes(result: dict[str, Any]) -> list[str]:
    return list(result["axes"])


def _shown(cell: Cell, axis: str, result: dict[str, Any]) -> str:
    """An axis that does not change a method is not shown for it."""
    methods = result["settings"]["axes"][axis]["methods"]
    return str(cell["at"][axis]) if methods is None or cell["method"] in methods else "-"


def _label(cell: Cell, result: dict[str, Any]) -> str:
    return ", ".join(f"{axis} {cell['at'][axis]}" for axis in _axes(result))
