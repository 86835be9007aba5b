"""Results JSON to terminal tables. Reads numbers only; never loads a model."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from rim.report.text import percent


def table(title: str, first: str, *headings: str, **looks: Any) -> Table:
    """An empty table whose first column holds names, the others numbers."""
    made = Table(title=title, title_justify="left", **looks)
    made.add_column(first, overflow="fold")
    for heading in headings:
        made.add_column(heading, justify="right")
    return made


def _any_block(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy:.1f}"


def _title(result: dict[str, Any]) -> str:
    return f"{result['run']} on {result['data']['name']}"


def evaluation_table(result: dict[str, Any]) -> Table:
    """One evaluation: final block, any block, each block, pass@k, accuracy by number of steps."""
    summary = result["summary"]
    blocks = summary["blocks"]
    rows = table(_title(result), "score", "accuracy %, 95 % interval")
    final = f"final block ({blocks})" if blocks else "answer"
    rows.add_row(final, percent(summary["final"], unit=""))
    if "any_block" in summary:
        rows.add_row("any block (oracle)", percent(summary["any_block"], unit=""))
        for row in summary["per_block"]:
            rows.add_row(f"  after block {row['block']}", percent(row, unit=""))
    for k, value in summary.get("pass_at_k", {}).items():
        rows.add_row(f"pass@{k}", f"{100 * value:.1f}")
    for row in summary["by_steps"]:
        rows.add_row(f"{row['steps']}-step questions ({row['total']})", percent(row, unit=""))
    return rows


def blocks_table(results: list[dict[str, Any]]) -> Table:
    """Evaluations of one run on one data set, a row for each number of blocks."""
    rows = table(_title(results[0]), "blocks", "accuracy % (95 %)", "any block", "tokens")
    rows.columns[0].justify = "right"
    for summary in (result["summary"] for result in results):
        rows.add_row(
            str(summary["blocks"]),
            percent(summary["final"], unit=""),
            _any_block(summary.get("any_block", {}).get("accuracy")),
            f"{summary['tokens_generated_mean']:.1f}",
        )
    return rows


def demo_table(methods: dict[str, dict[str, Any]]) -> Table:
    """Methods side by side: accuracy and time."""
    headings = ("accuracy % (95 %)", "any block", "TTFT ms", "answer ms", "tokens")
    rows = table("Held-out questions", "method", *headings)
    for name, row in methods.items():
        low, high = row["interval"]
        rows.add_row(
            name,
            percent({"accuracy": row["accuracy"], "low": low, "high": high}, unit=""),
            _any_block(row.get("any_block")),
            *(f"{row[key]:.1f}" for key in ("ttft_ms", "answer_ms", "tokens")),
        )
    return rows


def stats_table(name: str, stats: dict[str, Any]) -> Table:
    """The table of `rim data stats`."""
    rows = Table(title=name, title_justify="left", show_header=False)
    for key, value in stats.items():
        if key == "steps_histogram":
            value = ", ".join(f"{count}: {number}" for count, number in value.items())
        elif isinstance(value, float):
            value = f"{value:.1f}"
        rows.add_row(key.replace("_", " "), str(value))
    return rows
