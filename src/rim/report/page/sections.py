"""The sections of one run, from gathered results.

A section says in words what its picture shows. Where its results are missing it says which command
makes them. All of it is data; `rim.report.page.build` escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rim.report.charts import bars_chart, lines_chart
from rim.report.curves import ACCURACY, curves_chart
from rim.report.page.causal import faithfulness, protocols
from rim.report.page.gather import Run, by_blocks, main_evaluation, wrong_answers
from rim.report.page.inside import controls, geometry_and_attention, probes, selectors, walk
from rim.report.page.section import Section, accuracy_points, command

#: More wrong answers than this are not put on the page.
MOST_WRONG = 300


def run_sections(run: Run) -> list[Section]:
    """Return the sections of one run, in the order in which a stranger asks."""
    return [
        learning(run),
        blocks(run),
        depth(run),
        controls(run),
        *protocols(run),
        *faithfulness(run),
        walk(run),
        selectors(run),
        probes(run),
        geometry_and_attention(run),
        wrong(run),
        made(run),
    ]


# --- one run --------------------------------------------------------------------------------------


def learning(run: Run) -> Section:
    section = Section("learning", "Learning curves")
    figure = curves_chart("Learning curves", run.curves)
    if figure is None:
        section.missing.append("rim train RECIPE")
        return section
    values, _ = run.curves
    if ACCURACY in values:
        section.lines.append(f"Validation accuracy ended at {100 * values[ACCURACY][-1][1]:.1f} %.")
    section.figure(
        figure,
        "Vertical lines: where a stage begins. Stages train on different targets: losses of "
        "two stages are not to be compared.",
    )
    return section


def blocks(run: Run) -> Section:
    section = Section("blocks", "Accuracy per block, and by number of blocks")
    found = main_evaluation(run)
    if found is None or "per_block" not in found["summary"]:
        if not run.config or run.config.get("memory", {}).get("blocks", 1):
            section.missing.append(command(run, "rim eval RUN DATA"))
        return section
    rows = found["summary"]["per_block"]
    lines = [_accuracy_line("after block", [(r["block"], r) for r in rows])]
    oracle = 100 * found["summary"]["any_block"]["accuracy"]
    lines.append(
        {"name": "any block (oracle)", "x": [r["block"] for r in rows], "y": [oracle] * len(rows)}
    )
    counts = by_blocks(run)
    if len(counts) > 1:
        lines.append(_accuracy_line("asked with K blocks", counts))
    else:
        trained = rows[-1]["block"]
        others = ",".join(str(count) for count in range(1, trained))
        if others:
            section.missing.append(command(run, f"rim eval RUN DATA --blocks {others}"))
    figure = lines_chart(lines, "Accuracy by block", "block", "accuracy, %", whole=True)
    section.figure(
        figure, "Bands: 95 % Wilson intervals. The oracle is right if any block is: an upper bound."
    )
    first, last = rows[0]["accuracy"], rows[-1]["accuracy"]
    section.lines.append(
        f"After block 1 {100 * first:.1f} % are right, after block {rows[-1]['block']} "
        f"{100 * last:.1f} %, after some block {oracle:.1f} %."
    )
    return section


def _accuracy_line(name: str, rows: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    return {
        "name": name,
        "x": [x for x, _ in rows],
        **accuracy_points([row for _, row in rows]),
    }


def depth(run: Run) -> Section:
    section = Section("depth", "Accuracy by number of steps")
    found = main_evaluation(run)
    rows = found["summary"].get("by_steps", []) if found else []
    if not rows:
        section.missing.append(
            command(run, "rim eval RUN DATA") + "   (data whose records have steps)"
        )
        return section
    line = _accuracy_line("final block", [(r["steps"], r) for r in rows])
    names = [f"{r['steps']}\n(n = {r['total']})" for r in rows]
    section.figure(
        bars_chart(names, [line], "Accuracy by depth", "steps of the solution"),
        "Bars: 95 % Wilson intervals.",
    )
    return section


def wrong(run: Run) -> Section:
    section = Section("wrong", "Wrong answers")
    found, evaluation = wrong_answers(run), main_evaluation(run)
    if evaluation is None:
        section.missing.append(command(run, "rim eval RUN DATA"))
        return section
    if not found:
        section.lines.append("None, or their file is not there.")
        return section
    blocks = evaluation["summary"].get("blocks")
    asked = f", asked with {blocks} blocks" if blocks else ""
    first = f"; the first {MOST_WRONG} of {len(found):,}" if len(found) > MOST_WRONG else ""
    section.lines.append(f"Questions of {evaluation['data'].get('name', 'a file')}{asked}{first}.")
    section.extra["wrong"] = found[:MOST_WRONG]
    return section


def made(run: Run) -> Section:
    section = Section("made", "How it was made")
    environment = run.environment
    rows = [
        ["seed", str(run.config.get("seed", "-"))],
        ["method", str(run.config.get("method", "-"))],
        ["commit", str(environment.get("git_commit"))],
        [
            "machine",
            f"{environment.get('processor')}, {environment.get('cpu_count')} cores, "
            f"{environment.get('accelerator') or 'no accelerator'}",
        ],
        ["packages", ", ".join(f"{n} {v}" for n, v in (environment.get("packages") or {}).items())],
        ["time", str(environment.get("time_utc"))],
        ["data hashes", ", ".join(f"{n} {h}" for n, h in (environment.get("data") or {}).items())],
    ]
    total = run.training.get("total", {})
    if total:
        rows.append(
            [
                "training",
                f"{total['steps']} steps, {total['tokens']} tokens, {total['seconds']:.0f} s",
            ]
        )
    if environment:
        section.tables.append(("Where and with what", ["", ""], rows))
    section.extra["recipe"] = run.config_text
    if not run.config_text:
        section.missing.append("rim report RUN   (the run folder itself, not its results alone)")
    return section
