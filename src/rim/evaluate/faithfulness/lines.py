"""What `rim.evaluate.faithfulness.measure` found, in sentences."""

from __future__ import annotations

from typing import Any

from rim.report.text import p_text, percent


def lines_of(result: dict[str, Any]) -> list[str]:
    """Say what one reader's record shows, one sentence a line."""
    kind, right, wrong = result["kind"], result["answers_if_right"], result["answers_if_wrong"]
    each = ", ".join(
        f"block {row['block']} {100 * row['accuracy']['accuracy']:.0f}"
        + (f" (step {row['step']})" if row["step"] != row["block"] else "")
        for row in result["blocks"]
    )
    lines = [f"{kind}: the step is right in % of the questions that have it: {each}"]
    if wrong["total"] and right["total"]:
        lines.append(
            f"{kind}: where a decoded step is wrong, {percent(wrong)} of {wrong['total']} answers "
            f"are right; where all are right, {percent(right)} of {right['total']} "
            f"(Fisher {p_text(result['p'])})"
        )
    elif right["total"]:
        lines.append(f"{kind}: no decoded step is wrong, in {right['total']} questions")
    else:
        lines.append(
            f"{kind}: every question has a wrong decoded step, and {percent(wrong)} of "
            f"{wrong['total']} answers are right"
        )
    counts = result.get("wrong_steps")
    if counts and counts["total"]:
        lines.append(
            f"{kind}: of {counts['total']} questions with a wrong decoded step {counts['right']} "
            f"answers are right all the same, {counts['follows']} are what follows from the wrong "
            f"step, {counts['else']} are something else"
        )
    moved = result.get("transplant")
    if moved:
        for part in moved["parts"]:
            name = "one block" if part["part"] == "block" else "all blocks up to it"
            lines.append(
                f"{kind}: with {name} of another question, the decoded step becomes the other's "
                f"in {percent(part['step'])}, the answer the one that follows from it in "
                f"{percent(part['answer'])}, both in {100 * part['both']['accuracy']:.1f} % of "
                f"{moved['pairs']} pairs; the answer becomes the other's own in "
                f"{100 * part['sources_answer']['accuracy']:.1f} %"
            )
        lines.append(f"{kind}: {moved['verdict']}")
    return lines
