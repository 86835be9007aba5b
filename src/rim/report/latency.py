"""A benchmark's result as terminal tables, one for each batch size and question length."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from rim.report.tables import table


def latency_tables(result: dict[str, Any]) -> list[Table]:
    """Methods below each other; ratios are to the direct answer."""
    cells: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        cells.setdefault((row["question_tokens"], row["batch_size"]), []).append(row)
    return [_cell_table(length, batch, rows) for (length, batch), rows in cells.items()]


def _cell_table(question_tokens: int, batch_size: int, rows: list[dict[str, Any]]) -> Table:
    # Narrow on purpose: it has to fit 80 columns; the JSON has every spread.
    narrow = table(
        f"Question {question_tokens} tokens, batch {batch_size}",
        *("method", "TTFT ms", "x direct", "answer ms", "x direct", "ms/token", "MiB"),
        **{"box": box.SIMPLE_HEAD, "show_edge": False, "padding": 0},
    )
    for row in rows:
        blocks, memory = row["blocks"], row["peak_memory_mib"]
        narrow.add_row(
            f"{row['method']} K={blocks}" if blocks else row["method"],
            _spread(row["ttft_ms"]),
            _ratio(row["ttft_to_direct"]),
            _median(row["answer_ms"]),
            _median(row["answer_to_direct"], 2),
            _median(row["decode_ms_per_token"]),
            "-" if memory is None else f"{memory:.0f}",
        )
    return narrow


def _ratio(values: dict[str, float] | None) -> str:
    """`1.00` alone for the baseline itself, whose every ratio is 1."""
    itself = values is not None and values["low"] == values["high"] == 1
    return "1.00" if itself else _spread(values, 2)


def _spread(values: dict[str, float] | None, digits: int | None = None) -> str:
    """`246 (240-251)`: median and quartiles."""
    return _written(values, digits, "{median:.{places}f} ({low:.{places}f}-{high:.{places}f})")


def _median(values: dict[str, float] | None, digits: int | None = None) -> str:
    return _written(values, digits, "{median:.{places}f}")


def _written(values: dict[str, float] | None, digits: int | None, pattern: str) -> str:
    if values is None:
        return "-"
    value = values["median"]
    places = (0 if value >= 100 else 1 if value >= 10 else 2) if digits is None else digits
    return pattern.format(places=places, **values)
