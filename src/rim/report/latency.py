"""A benchmark's result as terminal tables, one for each batch size and question length."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table


def latency_tables(result: dict[str, Any]) -> list[Table]:
    """Methods below each other; ratios are to the direct answer."""
    cells: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        cells.setdefault((row["question_tokens"], row["batch_size"]), []).append(row)
    return [_cell_table(length, batch, rows) for (length, batch), rows in cells.items()]


def _cell_table(question_tokens: int, batch_size: int, rows: list[dict[str, Any]]) -> Table:
    title = f"Question {question_tokens} tokens, batch {batch_size}"
    # Narrow on purpose: it has to fit 80 columns; the JSON has every spread.
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0
    )
    table.add_column("method")
    for heading in ("TTFT ms", "x direct", "answer ms", "x direct", "ms/token", "MiB"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            method_label(row),
            spread(row["ttft_ms"]),
            _ratio(row["ttft_to_direct"]),
            median(row["answer_ms"]),
            median(row["answer_to_direct"], 2),
            median(row["decode_ms_per_token"]),
            "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}",
        )
    return table


def _ratio(values: dict[str, float] | None) -> str:
    """`1.00` alone for the baseline itself, whose every ratio is 1."""
    itself = values is not None and values["low"] == values["high"] == 1
    return "1.00" if itself else spread(values, 2)


def method_label(row: dict[str, Any]) -> str:
    """`rim K=8`, or the method alone where it has no blocks."""
    return f"{row['method']} K={row['blocks']}" if row["blocks"] else row["method"]


def spread(values: dict[str, float] | None, digits: int | None = None) -> str:
    """`246 (240-251)`: median and quartiles."""
    if values is None:
        return "-"
    places = _digits(values["median"]) if digits is None else digits
    low, high = values["low"], values["high"]
    return f"{values['median']:.{places}f} ({low:.{places}f}-{high:.{places}f})"


def median(values: dict[str, float] | None, digits: int | None = None) -> str:
    if values is None:
        return "-"
    places = _digits(values["median"]) if digits is None else digits
    return f"{values['median']:.{places}f}"


def _digits(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 10 else 2
