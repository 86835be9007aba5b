"""What a reader who reads nothing else should know, in sentences."""

from __future__ import annotations

from typing import Any

from rim.report.leads import LEVEL, lead
from rim.report.learned import has_learned
from rim.report.page.causal import verdict_call
from rim.report.page.gather import (
    Material,
    Run,
    made_on,
    main_controls,
    main_evaluation,
    main_protocols,
)
from rim.report.page.words import METHODS
from rim.report.text import percent
from rim.report.verdict import seeds_in_words, timed_together, verdict

_HIDDEN = "question hidden from the read-out"
#: Below this accuracy, blocks that change nothing may hold a guess; above that share the question
#: is a source of the answer, too. As in `transplant_verdict`.
_COMPETENT, _ALSO = 0.80, 0.25


def headline(material: Material) -> list[str]:
    """Write the sentences for a reader who reads nothing else."""
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
    reference = comparison["reference"]
    if reference not in methods:
        return [f"{task}: the reference method {reference} is not finished yet."]
    own = methods[reference]
    others = {n: r for n, r in methods.items() if n != reference and not r.get("control_of")}
    over = seeds_in_words([own])
    line = f"{task}: {reference} answers {percent(own['final'])} right, over {over}"
    if "latency" in own:
        line += f", in {own['latency']['answer_ms']['mean']:.1f} ms a question"
    lines = [line + "."]
    content = comparison["tasks"][task]
    # Models that have not learned often write on to the limit: their times mislead.
    timed = {n for n in others if all(has_learned(content, m, reference) for m in (n, reference))}
    leads = {name: lead(methods, name, reference) for name in others}
    gaps = {name: gap for name, gap in leads.items() if gap is not None}
    for word, sign in (("better", 1), ("worse", -1)):
        found = [
            f"{name} by {100 * abs(gap):.1f} points{_beside(others[name], own, name in timed)}"
            for name, gap in gaps.items()
            if sign * gap > 0
        ]
        if found:
            lines.append(f"It is {word} than {'; '.join(found)}.")
    if equal := [name for name, gap in gaps.items() if gap == 0]:
        lines.append(f"As many of its answers are right as of {', '.join(equal)}.")
    if fewer := [name for name, row in others.items() if row["seeds"] != own["seeds"]]:
        lines.append(
            f"Not with the same seeds yet: {', '.join(fewer)}; compared where both have one."
        )
    return lines


def _beside(row: dict[str, Any], own: dict[str, Any], timed: bool) -> str:
    """In brackets: the other's time, and whether every seed alone shows the difference."""
    about = []
    both = "latency" in row and "latency" in own
    if timed and both and timed_together(own["latency"], row["latency"]):
        ratio = row["latency"]["answer_ms"]["mean"] / own["latency"]["answer_ms"]["mean"]
        if not 0.8 <= ratio <= 1.25:
            times = f"{ratio:.1f} times as long" if ratio > 1 else f"{ratio:.1f} of the time"
            about.append(f"which takes {times}")
    if row.get("p") is None or row["p"] >= LEVEL:
        about.append("not sure")
    return f" ({', '.join(about)})" if about else ""


def _run_headline(run: Run) -> list[str]:
    found = main_evaluation(run)
    method = run.config.get("method")
    told = [f"Method {method}: {METHODS[method]}."] if method in METHODS else []
    if found is None:
        lines = [f"{run.label} has not been evaluated yet."]
        return told + lines + _what_controls_say(run) + _what_blocks_do(run)
    summary = found["summary"]
    asked = f" with {summary['blocks']} memory blocks" if summary.get("blocks") else ""
    lines = [
        f"{run.label}{asked} answers {percent(summary['final'])} of {summary['questions']} "
        f"questions of {found['data']['name']} right."
    ]
    return told + lines + _what_controls_say(run) + _what_blocks_do(run)


def _what_controls_say(run: Run) -> list[str]:
    found = main_controls(run)
    tested = [v for v in found["verdicts"] if "p" in v] if found else []
    if found is None or not tested:
        return []
    sure = [v for v in tested if v["p"] < LEVEL]
    lines = []
    for word, moved in (
        ("falls", [v for v in sure if v["to"] < v["from"]]),
        ("rises", [v for v in sure if v["to"] > v["from"]]),
    ):
        if moved:
            names = "; ".join(v["name"].partition(", ")[2] for v in moved)
            lines.append(f"Its accuracy surely {word} under {names} ({made_on(found)}).")
    lines = lines or [f"No control changes its accuracy for sure ({made_on(found)})."]
    hidden = [v for v in tested if v["name"].endswith(_HIDDEN)]
    return [*lines, *(_hidden_question(run, v) for v in hidden)]


def _hidden_question(run: Run, control: dict[str, Any]) -> str:
    """Whether the blocks alone are enough to answer; and whether the question alone is, too, if a
    transplant tells.
    """
    before, after = 100 * control["from"], 100 * control["to"]
    line = f"With the {_HIDDEN} {after:.1f} % are right, {before:.1f} % with it in sight"
    if control["from"] < _COMPETENT or (control["p"] < LEVEL and control["to"] < control["from"]):
        return f"{line}."
    found = main_protocols(run).get("transplant", {}).get("verdicts", [])
    rivals = [v["competitor"]["all"] for v in found if v["aim"] == "answer"]
    alone = rivals[0].get("the question alone", 0.0) if rivals else 0.0
    if alone <= _ALSO:
        return f"{line}: the blocks hold an answer."
    return (
        f"{line}: the blocks hold an answer, but are not its only source, since the question alone "
        f"gives it in {100 * alone:.1f} % of the transplants."
    )


def _what_blocks_do(run: Run) -> list[str]:
    """The calls of the transplants, and of reading the blocks."""
    lines = []
    if result := main_protocols(run).get("transplant"):
        calls = [verdict_call(verdict) for verdict in result["verdicts"]]
        lines.append("Parts of its blocks exchanged between questions: " + "; ".join(calls) + ".")
    for result in run.of("faithfulness")[-1:]:
        for reader in result["faithfulness"]["readers"]:
            if "transplant" in reader:
                lines.append(
                    f"Steps read off its blocks by {reader['kind']}: all of a question's right in "
                    f"{percent(reader['all_steps'])}; {reader['transplant']['verdict']}."
                )
    return lines
