"""Reproductions as terminal tables: what there is, what one would do, how it did."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from rim.report.tables import table

MARKS = {
    "p": "the paper's abstract, or three agreeing notes of it",
    "n": "one or two notes of the paper",
    "peer": "other papers on the same data",
}
TESTS = {"gsm8k": "GSM8K", "gsm_hard": "GSM-Hard", "svamp": "SVAMP", "multiarith": "MultiArith"}


#: The cheapest of the paper's own figures: what RiM is to beat, and what it is to come near.
FIRST = ("gpt2/direct", "gpt2/cot", "gpt2/rim")


def catalogue_table(plans: list[dict[str, Any]]) -> Table:
    """A row a reproduction, with what is expected of it and what it takes."""
    rows = table(
        "reproductions of arXiv 2605.30343, and peers on the same data",
        *("name", "GSM8K % expected", "GSM-Hard %", "h a seed", "GiB"),
    )
    rows.columns[0].no_wrap = True
    for plan in plans:
        hours = f"{plan['hours_a_seed']:.1f}"
        if plan["hours_of_the_start"]:
            hours += f" + {plan['hours_of_the_start']:.1f}"
        wanted = (_wanted(plan["figures"], test) for test in ("gsm8k", "gsm_hard"))
        rows.add_row(plan["name"], *wanted, hours, f"{plan['memory_gib']:.0f}")
    return rows


def total_line(plans: list[dict[str, Any]]) -> str:
    """What all of it takes, and what to begin with."""
    starts = {(p["base"], p["start"]): p["hours_of_the_start"] for p in plans}  # trained once
    total = sum(p["hours_a_seed"] for p in plans) + sum(starts.values())
    first = [p for p in plans if p["name"] in FIRST]
    hours = sum(p["hours_a_seed"] for p in first)
    return (
        f"All names: {total:.0f} h for one seed, {3 * total:.0f} h for three. For a first check "
        f"{', '.join(p['name'] for p in first)}: {hours:.1f} h for one seed (--seeds 0)."
    )


def _wanted(figures: list[dict[str, Any]], test: str) -> str:
    found = [f for f in figures if (f["test"], f["which"]) == (test, "final")]
    return ", ".join(f"{_values(f)} ({f['mark']})" for f in found) or "-"


def _values(figure: dict[str, Any]) -> str:
    return "-".join(f"{value:g}" for value in figure["values"])


def marks_note() -> str:
    return "; ".join(f"{mark}: {meaning}" for mark, meaning in MARKS.items()) + "."


def figures_table(record: dict[str, Any]) -> Table:
    """How a reproduction did, by both protocols, against each expected figure."""
    rows = table(
        f"{record['reproduction']}: % right",
        *("test", "expected", "source", "paper's protocol", "", "validation only", ""),
    )
    for row in record["figures"]:
        name = TESTS[row["test"]]
        name += ", any block" if row["which"] == "any_block" else ""
        paper, ours = row.get("paper_protocol"), row["validation_only"]
        shown = (
            f"{paper['mean']:.1f} (s.e. {paper['standard_error']:.1f})" if paper else "-",
            f"{ours['mean']:.1f} ({ours['low']:.1f}-{ours['high']:.1f})",
        )
        if not row["expected"]:
            rows.add_row(name, "none published", "", shown[0], "", shown[1], "")
        for figure in row["expected"]:
            source = f"{figure['source']} ({figure['mark']})"
            wanted = f"{figure['low']:.1f}-{figure['high']:.1f}"
            places = (figure.get("paper_protocol", ""), figure["validation_only"])
            rows.add_row(name, wanted, source, shown[0], places[0], shown[1], places[1])
    return rows


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Say in sentences what a reproduction would do."""
    stages = ", then ".join(
        f"{stage['name']} ({stage['steps']:,} steps, about {stage['tokens']} tokens an example, "
        f"{stage['hours']:.2f} h)"
        for stage in plan["stages"]
    )
    lines = [
        f"{plan['name']}: {plan['method']} on {plan['base']}, "
        f"seeds {', '.join(map(str, plan['seeds']))}.",
        f"Reads: {'; '.join(f'{name} from {source}' for name, source in plan['data'].items())}.",
        f"Trains: {stages}.",
    ]
    if plan["start"]:
        lines.append(
            f"Starts from {plan['start']}, trained first ({plan['hours_of_the_start']:.2f} h)."
        )
    lines += [
        f"Takes: {plan['hours']:.1f} h and {plan['memory_gib']:.0f} GiB on one H100, all seeds. "
        "Computed, not measured (docs/reproduce.md).",
        f"Writes: {plan['folder']}.",
    ]
    for figure in plan["figures"]:
        name = TESTS[figure["test"]] + (", any block" if figure["which"] == "any_block" else "")
        lines.append(
            f"Expects: {name} {figure['low']:.1f}-{figure['high']:.1f} % "
            f"({_values(figure)} reported by {figure['source']}, mark {figure['mark']})."
        )
    return lines if plan["figures"] else [*lines, "Expects: nothing; no figure is published."]
