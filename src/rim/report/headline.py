"""What a reader who reads nothing else should know, in sentences."""

from __future__ import annotations

from typing import Any

from rim.report.gather import Material, Run, main_evaluation
from rim.report.section import percent
from rim.report.verdict import verdict


def headline(material: Material) -> list[str]:
    """What a reader who reads nothing else should know."""
    lines = []
    for comparison in material.comparisons:
        for task, content in comparison["tasks"].items():
            lines += _comparison_headline(task, content["methods"], comparison)
            lines += verdict(comparison).get(task, [])[1:]
    for demo in material.demos:
        rows = demo["methods"]
        said = [
            f"{name} answers {100 * row['accuracy']:.1f} % right in {row['answer_ms']:.1f} ms"
            for name, row in rows.items()
        ]
        lines.append(f"Same base, same questions, seed {demo['seed']}: {'; '.join(said)}.")
    for run in material.runs:
        lines += _run_headline(run)
    return lines


def _comparison_headline(
    task: str, methods: dict[str, Any], comparison: dict[str, Any]
) -> list[str]:
    reference, seeds = comparison["reference"], len(comparison["seeds"])
    if reference not in methods:
        return [f"{task}: the reference method {reference} is not finished yet."]
    own = methods[reference]
    others = {n: r for n, r in methods.items() if n != reference and not r.get("control_of")}
    over = f"{seeds} seeds" if seeds > 1 else "one seed"
    line = f"{task}: {reference} answers {percent(own['final'])} right, over {over}"
    if "latency" in own:
        line += f", in {own['latency']['answer_ms']['mean']:.1f} ms a question"
    lines = [line + "."]
    for name, row in others.items():
        gap = 100 * (own["final"]["mean"] - row["final"]["mean"])
        word = "better" if gap > 0 else "worse"
        said = (
            f"{reference} is {abs(gap):.1f} points {word} than {name} "
            f"({100 * row['final']['mean']:.1f} %"
        )
        if "latency" in row and "latency" in own:
            ratio = row["latency"]["answer_ms"]["mean"] / own["latency"]["answer_ms"]["mean"]
            said += f", in {ratio:.1f} times the time of {reference}"
        sure = row.get("p") is not None and row["p"] < 0.05
        lines.append(said + ("), sure in every seed." if sure else "), and that is not sure."))
    return lines


def _run_headline(run: Run) -> list[str]:
    found = main_evaluation(run)
    if found is None:
        return [f"{run.name} has not been evaluated yet."]
    summary = found["summary"]
    asked = f" with {summary['blocks']} memory blocks" if summary.get("blocks") else ""
    lines = [
        f"{run.name}{asked} answers {percent(summary['final'])} of {summary['questions']} "
        f"questions of {found['data']['name']} right."
    ]
    verdicts = [v for c in run.of("controls")[-1:] for v in c["verdicts"] if "p" in v]
    if verdicts:
        falls = [
            v["name"].partition(", ")[2] for v in verdicts if v["p"] < 0.05 and v["to"] < v["from"]
        ]
        lines.append(
            "Its accuracy surely falls under " + "; ".join(falls) + "."
            if falls
            else "No control changes its accuracy for sure."
        )
    return lines
