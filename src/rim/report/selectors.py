"""Selectors as a terminal table. Reads numbers only."""

from __future__ import annotations

from typing import Any

from rich.table import Table

ONE_ANSWER = ("final", "first")


def thresholds_sentence(selection: dict[str, Any], data: dict[str, Any]) -> str:
    """Say what the answers were scored on, and where the thresholds come from."""
    on = f"Scored on {data['name']} ({data['examples']} questions)"
    origin = selection.get("calibrated_on")
    if origin is None:
        return f"{on}; nothing says where the thresholds come from."
    if not origin:
        return f"{on}; no threshold was calibrated: every question is answered."
    if origin["data_hash"] == data["hash"]:
        return (
            f"{on}; the thresholds were fitted to these very questions, so what they reach here "
            "flatters them."
        )
    return f"{on}; thresholds from {origin.get('name', 'another file')} ({origin['questions']})."


def selectors_table(selection: dict[str, Any]) -> Table:
    """A row a selector, the oracle last."""
    table = Table(title="Which answer to trust; intervals are in the JSON", title_justify="left")
    table.add_column("selector")
    for heading in ("right %", "blocks", "ms", "ECE", "given", "of these"):
        table.add_column(heading, justify="right")
    again = any("fallback" in row for row in selection["selectors"].values())
    if again:
        table.add_column("fall-back", justify="right")
    for name, row in selection["selectors"].items():
        ms = selection["ms"][name if name in ONE_ANSWER else "all"]
        kept = row.get("abstain")
        right = f"{100 * row['accuracy']:.1f}"
        cells = [name, right, f"{row['blocks_used']:.1f}", f"{ms:.1f}", f"{row['ece']:.3f}"]
        cells.append(f"{100 * kept['coverage']:.0f} %" if kept else "-")
        cells.append(f"{100 * kept['accuracy']:.1f}" if kept and kept["total"] else "-")
        if again:
            cells.append(f"{100 * row['fallback']['accuracy']:.1f}" if "fallback" in row else "-")
        table.add_row(*cells)
    table.add_row("oracle: any block", f"{100 * selection['oracle']['accuracy']:.1f}")
    return table
