"""A comparison's JSON as terminal tables of 80 columns. Reads numbers only; never loads a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from rim.report.learned import commonest_text
from rim.report.tables import table
from rim.report.text import p_cell, percent
from rim.report.verdict import timed_together

KINDS = {
    "wilson": "95 % Wilson interval of the one seed's questions",
    "range": "least and most of the seeds",
    "t": "95 % t interval of the mean over seeds",
}
#: A larger share of answers that were cut off is told.
MOST_UNFINISHED = 0.01


def comparison_tables(result: dict[str, Any]) -> Iterator[Table]:
    """For each task: accuracy, accuracy by depth and on other tests, cost, selection."""
    for task, content in result["tasks"].items():
        methods = content["methods"]
        if not methods:
            continue
        yield accuracy_table(task, methods, result["reference"])
        if _depths(methods) or any(row["extra_tests"] for row in methods.values()):
            yield depth_table(task, methods)
        yield cost_table(task, methods)
        if content["selection"]:
            yield selection_table(task, content["selection"])


def accuracy_table(task: str, methods: dict[str, Any], reference: str) -> Table:
    rows = table(
        f"{task}: accuracy %", "method", "final", "any block", f"only it/only {reference}", "p"
    )
    for name, row in methods.items():
        any_block = percent(row["any_block"], unit="") if "any_block" in row else "-"
        rows.add_row(name, percent(row["final"], unit=""), any_block, *_against(row))
    return rows


def _against(row: dict[str, Any]) -> tuple[str, str]:
    """Discordant questions, all seeds added up, and the seeds' joint p."""
    tests, p = row["against_reference"], row["p"]
    if not tests:
        return "-", "-"
    only_it, only_reference = (sum(t[key] for t in tests) for key in ("only_first", "only_second"))
    return f"{only_it}/{only_reference}", p_cell(p)


def _depths(methods: dict[str, Any]) -> list[int]:
    """The numbers of steps that the questions have; none where all have one and the same, since
    that column would repeat the accuracy.
    """
    found = sorted({d["steps"] for row in methods.values() for d in row["by_steps"]})
    return found if len(found) > 1 else []


def depth_table(task: str, methods: dict[str, Any]) -> Table:
    depths = _depths(methods)
    extra = list(dict.fromkeys(n for row in methods.values() for n in row["extra_tests"]))
    headings = [f"{d} step{'s' if d > 1 else ''}" for d in depths] + extra
    parts = ["by steps of the solution"] * bool(depths) + ["on other tests"] * bool(extra)
    title = f"{task}: accuracy % {', and '.join(parts)}"
    rows = table(title, "method", *headings)
    for name, row in methods.items():
        means = {d["steps"]: d["mean"] for d in row["by_steps"]}
        cells = [f"{100 * means[d]:.1f}" if d in means else "-" for d in depths]
        others = row["extra_tests"]
        cells += [f"{100 * others[n]['mean']:.1f}" if n in others else "-" for n in extra]
        rows.add_row(name, *cells)
    return rows


def cost_table(task: str, methods: dict[str, Any]) -> Table:
    rows = table(
        f"{task}: cost (tokens trained; training seconds; TTFT and answer in ms; tokens out)",
        *("method", "steps", "tokens", "train", "params", "TTFT", "answer", "out"),
    )
    for name, row in methods.items():
        timed = row.get("latency")
        latency = ("ttft_ms", "answer_ms", "tokens")
        rows.add_row(
            name + ("*" if row["exempt"] else ""),
            f"{row['steps']['mean']:.0f}",
            short(row["tokens"]["mean"]),
            f"{row['seconds']['mean']:.0f}",
            short(row["parameters"]["trainable"]),
            *(f"{timed[key]['mean']:.1f}" if timed else "-" for key in latency),
        )
    return rows


def selection_table(task: str, groups: dict[str, Any]) -> Table:
    rows = table(f"{task}: chosen with TEST questions", "method", "%", "s.e.", "of")
    for name, row in groups.items():
        mean, error = 100 * row["mean"], 100 * row["standard_error"]
        rows.add_row(name, f"{mean:.1f}", f"{error:.2f}", ", ".join(row["chosen"]))
    return rows


def notes(result: dict[str, Any]) -> list[str]:
    """Write the sentences that explain a comparison's tables and warn of what limits them."""
    budget = result["budget"]
    equal = "optimizer steps and examples" if budget["kind"] == "steps" else "trained tokens"
    rows = [row for content in result["tasks"].values() for row in content["methods"].values()]
    kinds = {row["final"]["kind"] for row in rows}
    lines = [f"In brackets: {KINDS[kind]}." for kind in sorted(kinds)]
    lines += [
        f"{task}: {text} (what always giving that one would get right)."
        for task, content in result["tasks"].items()
        if (text := commonest_text(content))
    ]
    lines.append(
        "p: McNemar's exact test against the reference, the largest of the seeds' p values; 1 "
        "where seeds point in different directions."
    )
    if any("any_block" in row for row in rows):
        lines.append("any block is an oracle: right after some block, no matter which.")
    if any(content["selection"] for content in result["tasks"].values()):
        lines.append("Chosen with TEST questions, the paper's protocol: see docs/compare.md.")
    lines.append(f"Equal budgets: {equal} after the start.")
    lines += [f"* {name}: another budget, {why}." for name, why in budget["exempt"].items()]
    for task, content in result["tasks"].items():
        lines += [
            f"{task}: {', '.join(start['methods'])} start from {name} "
            f"({start['steps']['mean']:.0f} steps, {short(start['tokens']['mean'])} tokens), "
            "trained once a seed and not in the table."
            for name, start in content["starts"].items()
        ]
    for name, method in result["settings"]["methods"].items():
        other, _, stage = (method["start"] or "").partition("/")
        if stage:
            lines.append(
                f"{name} goes on from {other} after its stage {stage}, whose steps count in its "
                "budget; the table has what came after."
            )
    for task, content in result["tasks"].items():
        lines += [
            f"{task}: {name} has no control {', '.join(refused)}: {next(iter(refused.values()))}."
            for name, row in content["methods"].items()
            if (refused := row.get("controls_refused"))
        ]
    for task, content in result["tasks"].items():
        lines += list(_warnings(task, content["methods"], result["reference"]))
    if result["missing"]:
        lines.append(f"Not there yet: {', '.join(result['missing'])}.")
    return lines


def _warnings(task: str, methods: dict[str, Any], reference: str) -> Iterator[str]:
    """Answers that the limit cut off, which count as wrong, and times of another session."""
    for name, row in methods.items():
        if (cut := row.get("unfinished", 0)) > MOST_UNFINISHED:
            yield (
                f"{task}: {100 * cut:.0f} % of {name}'s answers were cut off by "
                "evaluation.max_new_tokens and count as wrong."
            )
    own = methods.get(reference, {}).get("latency")
    apart = [
        name
        for name, row in methods.items()
        if own and row.get("latency") and not timed_together(own, row["latency"])
    ]
    if apart:
        yield f"{task}: {', '.join(apart)} timed in another session than {reference}."


def short(number: float) -> str:
    """`812`, `12.3k`, `4.56M`, `1.24B`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"
