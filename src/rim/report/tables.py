"""Results JSON to terminal tables. Reads numbers only; never loads a model."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def percent(accuracy: dict[str, Any]) -> str:
    """`97.4 (96.0-98.3)`: per cent with the 95 % interval."""
    value, low, high = (100 * accuracy[key] for key in ("accuracy", "low", "high"))
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def evaluation_table(result: dict[str, Any]) -> Table:
    """One evaluation: final block, any block, each block, pass@k, accuracy by number of steps."""
    summary = result["summary"]
    table = Table(title=f"{result['run']} on {result['data']['name']}", title_justify="left")
    table.add_column("score")
    table.add_column("accuracy %, 95 % interval", justify="right")
    blocks = summary["blocks"]
    table.add_row(f"final block ({blocks})" if blocks else "answer", percent(summary["final"]))
    if "any_block" in summary:
        table.add_row("any block (oracle)", percent(summary["any_block"]))
        for row in summary["per_block"]:
            table.add_row(f"  after block {row['block']}", percent(row))
    for k, value in summary.get("pass_at_k", {}).items():
        table.add_row(f"pass@{k}", f"{100 * value:.1f}")
    for row in summary["by_steps"]:
        table.add_row(f"{row['steps']}-step questions ({row['total']})", percent(row))
    return table


def blocks_table(results: list[dict[str, Any]]) -> Table:
    """Evaluations of one run on one data set, a row for each number of blocks."""
    first = results[0]
    table = Table(title=f"{first['run']} on {first['data']['name']}", title_justify="left")
    for heading in ("blocks", "accuracy % (95 %)", "any block", "tokens"):
        table.add_column(heading, justify="right")
    for result in results:
        summary = result["summary"]
        any_block = summary.get("any_block")
        table.add_row(
            str(summary["blocks"]),
            percent(summary["final"]),
            f"{100 * any_block['accuracy']:.1f}" if any_block else "-",
            f"{summary['tokens_generated_mean']:.1f}",
        )
    return table


def demo_table(methods: dict[str, dict[str, Any]]) -> Table:
    """Methods side by side: accuracy and time."""
    table = Table(title="Held-out questions", title_justify="left")
    table.add_column("method")
    for heading in ("accuracy % (95 %)", "any block", "TTFT ms", "answer ms", "tokens"):
        table.add_column(heading, justify="right")
    for name, row in methods.items():
        interval = {
            "accuracy": row["accuracy"],
            "low": row["interval"][0],
            "high": row["interval"][1],
        }
        any_block = f"{100 * row['any_block']:.1f}" if "any_block" in row else "-"
        table.add_row(
            name,
            percent(interval),
            any_block,
            f"{row['ttft_ms']:.1f}",
            f"{row['answer_ms']:.1f}",
            f"{row['tokens']:.1f}",
        )
    return table


def stats_table(name: str, stats: dict[str, Any]) -> Table:
    """What `rim data stats` shows."""
    table = Table(title=name, title_justify="left", show_header=False)
    for key, value in stats.items():
        if key == "steps_histogram":
            value = ", ".join(f"{count}: {number}" for count, number in value.items())
        elif isinstance(value, float):
            value = f"{value:.1f}"
        table.add_row(key.replace("_", " "), str(value))
    return table
