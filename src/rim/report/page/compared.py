"""The sections of a comparison, and of the demo."""

from __future__ import annotations

from typing import Any

from rim.report.charts import bars_chart, lines_chart, themed
from rim.report.comparison import notes, short
from rim.report.curves import learning_chart
from rim.report.learned import commonest_text, told_controls
from rim.report.page.section import Section
from rim.report.page.words import METHODS, TASKS
from rim.report.plot import accuracy_latency_svg
from rim.report.style import method_marks
from rim.report.text import p_cell, percent
from rim.report.verdict import seeds_in_words


def comparison_sections(result: dict[str, Any]) -> list[Section]:
    """Accuracy and cost, latency, depth, blocks, controls of every task; how it was made."""
    sections = []
    for number, (task, content) in enumerate(result["tasks"].items()):
        methods = content["methods"]
        if not methods:
            continue
        if not sections:
            sections.append(_what_is_compared(result))
        one = Section(f"task-{number}", f"{task}: accuracy and cost")
        one.tables.append(_methods_table(content, result["reference"]))
        deeper = Section(f"depth-{number}", f"{task}: depth and blocks")
        _pictures(one, deeper, task, methods)
        tested = Section(f"controls-{number}", f"{task}: do the blocks compute? Controls")
        told, left_out = told_controls(content, result["reference"])
        tested.lines += [_control_line(verdict, methods) for verdict in told]
        if told:
            tested.lines.insert(
                0,
                f"The trained {result['reference']} was asked again after something was done to "
                "its blocks, or another model was trained without a part of the method. Where "
                "answers depend on what is in the blocks, accuracy falls.",
            )
        tested.lines += [f"{line}." for line in left_out]
        sections += [one, *([deeper] if deeper.figures else [])]
        sections += [tested] if tested.lines else []
    about = Section("comparison-made", "How the comparison was made", lines=notes(result))
    made = result.get("summed_up_by", {})
    packages = ", ".join(f"{n} {v}" for n, v in (made.get("packages") or {}).items())
    about.tables.append(
        (
            "Where and with what",
            ["", ""],
            [
                ["name", result["name"]],
                ["seeds", ", ".join(map(str, result["seeds"]))],
                ["commit", str(made.get("git_commit"))],
                ["machine", f"{made.get('processor')}, {made.get('cpu_count')} cores"],
                ["packages", packages],
            ],
        )
    )
    return [*sections, about]


def _what_is_compared(result: dict[str, Any]) -> Section:
    """Methods and tasks in words, for who has never seen them."""
    section = Section("what", "What is compared")
    given = result.get("settings", {})
    for task in result["tasks"]:
        source = given.get("tasks", {}).get(task, {}).get("data", {}).get("train") or {}
        words = TASKS.get(source.get("format", task)) or TASKS.get(task)
        section.lines.append(f"The task {task}: {words or 'a data set of your own'}.")
    found = [row for own in result["tasks"].values() for row in own["methods"].values()]
    section.lines.append(
        f"Every method was trained over {seeds_in_words(found)}, from other random numbers each "
        "time, and asked the same held-out questions."
        if any(len(row["seeds"]) > 1 for row in found)
        else "Every method was trained once and asked the same held-out questions."
    )
    named = {name: row for own in result["tasks"].values() for name, row in own["methods"].items()}
    rows = []
    for name, row in named.items():
        recipe = given.get("methods", {}).get(name, {}).get("recipe") or {}
        method = recipe.get("method") or (given.get("common") or {}).get("method") or name
        words = METHODS.get(method, "a method of your own")
        written = recipe.get("stages") or []
        names = written if isinstance(written, dict) else [str(s["name"]) for s in written]
        stages = list(dict.fromkeys(names))
        trained = f"the method {method}, stages: {', '.join(stages) or 'its own'}"
        if row.get("control_of"):
            words = f"a control for {row['control_of']}: {trained}"
        elif method != name:
            words = f"a variant: {trained}"
        rows.append([name, words])
    section.tables.append(("The methods", ["", ""], rows))
    return section


def _control_line(verdict: dict[str, Any], methods: dict[str, Any]) -> str:
    """The verdict; of a training control whose seeds differ, also each seed's accuracy."""
    name, instead, reference = verdict["name"].partition(" instead of ")
    line = verdict["line"] + "."
    if not instead or verdict.get("p", 0) < 0.05 or not {name, reference} <= set(methods):
        return line
    before, after = (
        dict(zip(methods[n]["seeds"], methods[n]["per_seed"], strict=True))
        for n in (reference, name)
    )
    each = ", ".join(
        f"{100 * before[seed]['accuracy']:.1f} to {100 * after[seed]['accuracy']:.1f}"
        for seed in before
        if seed in after  # one of them may not be finished
    )
    return f"{line} Seed by seed: from {each} %."


def _methods_table(
    content: dict[str, Any], reference: str
) -> tuple[str, list[str], list[list[str]]]:
    rows = []
    for name, row in content["methods"].items():
        timed = row.get("latency")
        rows.append(
            [
                name + (" (control)" if row.get("control_of") else ""),
                percent(row["final"]),
                percent(row["any_block"]) if "any_block" in row else "-",
                f"{timed['answer_ms']['mean']:.1f}" if timed else "-",
                f"{timed['tokens']['mean']:.1f}" if timed else "-",
                short(row["tokens"]["mean"]),
                p_cell(row.get("p")),
            ]
        )
    heading = ["method", "accuracy", "any block", "ms", "tokens out", "tokens trained", "p"]
    parts = ["Accuracy and cost", commonest_text(content), f"p against {reference}"]
    return "; ".join(part for part in parts if part), heading, rows


def _pictures(one: Section, deeper: Section, task: str, methods: dict[str, Any]) -> None:
    marks = method_marks(methods)
    timed = {name: row for name, row in methods.items() if "latency" in row}
    if timed:
        label = f"{task}: accuracy against latency"
        one.figure(
            themed(accuracy_latency_svg(task, timed), label),
            "Up and to the left is better. Hollow: trained as a control.",
        )
    if learning := learning_chart(task, methods):
        deeper.figure(
            learning, "Validation while training, by step after the start; mean over seeds."
        )
    depths = sorted({d["steps"] for row in methods.values() for d in row["by_steps"]})
    if len(depths) > 1:
        series = []
        for name, row in methods.items():
            means = {d["steps"]: 100 * d["mean"] for d in row["by_steps"]}
            line = {"name": name, "y": [means.get(d) for d in depths]}
            series.append(line | {"colour": marks[name].colour})
        names = [str(d) for d in depths]
        size = (8.4, 3.8)
        figure = bars_chart(names, series, "Accuracy by depth", "steps of the solution", size=size)
        deeper.figure(figure, "Mean over seeds.")
    lines = [
        {
            "name": name,
            "colour": marks[name].colour,
            "x": [b["block"] for b in row["per_block"]],
            "y": [100 * b["mean"] for b in row["per_block"]],
        }
        for name, row in methods.items()
        if row.get("per_block")
    ]
    if lines:
        figure = lines_chart(lines, "Accuracy per block", "block", "accuracy, %", whole=True)
        deeper.figure(figure, "What the model knew after each block; mean over seeds.")


def demo_section(demo: dict[str, Any]) -> Section:
    """The demo's table and its picture, one seed."""
    section = Section("demo", "The methods side by side")
    rows, points = [], {}
    for name, row in demo["methods"].items():
        low, high = row["interval"]
        right = {"mean": row["accuracy"], "low": low, "high": high, "kind": "wilson"}
        ms = row["answer_ms"]
        points[name] = {
            "final": right,
            "latency": {"answer_ms": {"mean": ms, "low": ms, "high": ms, "kind": "none"}},
        }
        rows.append(
            [name, percent(right), f"{row['ttft_ms']:.1f}", f"{ms:.1f}", f"{row['tokens']:.1f}"]
        )
    section.lines += [f"{name}: {METHODS[name]}." for name in demo["methods"] if name in METHODS]
    heading = ["method", "accuracy (95 %)", "first token, ms", "whole answer, ms", "tokens"]
    section.tables.append(("Held-out questions", heading, rows))
    svg = themed(accuracy_latency_svg("demo", points), "accuracy against latency")
    section.figure(svg, "Up and to the left is better. Bars: 95 % Wilson intervals.")
    return section
