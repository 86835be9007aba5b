"""The verdict of a transplant: the thresholds, and what is said where they are met or missed."""

from __future__ import annotations

from typing import Any

#: What a verdict asks for, as shares (necessity: accuracy lost).
COMPETENCE, SUFFICIENCY, COMPETITOR, NECESSITY = 0.80, 0.80, 0.25, 0.50


def transplant_verdict(
    aim: str,
    carrier: str,
    sufficiency: dict[str, Any],
    question_alone: dict[str, Any],
    controls: dict[str, Any],
    *,
    competence: float,
    nowhere: bool,
) -> dict[str, Any]:
    """Whether the blocks carry the intermediate value, or the answer (`aim`), as JSON has it.

    Args:
        carrier: the part that was chosen. sufficiency: how often it gives what is wanted.
        question_alone: how often the source's question without its blocks does.
        competence: the share of questions that are right without any change.
        nowhere: no part of the blocks gives what is wanted, in any pair.
    """
    # A source with the same answer hands over the answer by right: it competes for values alone.
    rivals = {"the question alone": question_alone["accuracy"]}
    rivals["an unrelated source"] = controls["unrelated"]["accuracy"]
    if aim == "intermediate":
        rivals["a source with the same answer"] = controls["same_answer"]["accuracy"]
    rival = max(rivals, key=lambda name: rivals[name])
    decoded = controls["decoded"]["accuracy"]
    enough = sufficiency["accuracy"] >= SUFFICIENCY
    asked = {
        "competence": (competence, competence >= COMPETENCE),
        "sufficiency": (sufficiency["accuracy"], enough),
        # What is likeliest among the task's answers must also be what the model writes.
        "decoding": (decoded, decoded >= SUFFICIENCY or not enough),
        "competitor": (rivals[rival], rivals[rival] <= COMPETITOR),
        "necessity": (controls["necessity"], controls["necessity"] >= NECESSITY),
    }
    holds = all(passed for _, passed in asked.values())
    failing = [name for name, (_, passed) in asked.items() if not passed]
    thing = (
        "the answer that follows from the source's intermediate value and the recipient's question"
        if aim == "intermediate"
        else "the source's own answer"
    )
    # The blocks give it as they should, and so does the question: either is enough.
    not_only_source = (
        aim == "answer"
        and rivals["the question alone"] > COMPETITOR
        and set(failing) <= {"competitor", "necessity"}
    )
    call = (
        f"the blocks carry the {'intermediate value' if aim == 'intermediate' else 'answer'}"
        if holds
        else f"no call ({', '.join(failing)})"
    )
    if not_only_source:
        call += "; the blocks hold an answer but are not its only source"
    low, high = 100 * sufficiency["low"], 100 * sufficiency["high"]
    found = (
        f"{carrier}, transplanted: {100 * sufficiency['accuracy']:.1f} % ({low:.1f}-{high:.1f}) "
        f"give {thing}, {100 * decoded:.1f} % when decoded freely"
    )
    line = (
        f"{f'no part of the blocks, transplanted, gives {thing}' if nowhere else found}; best "
        f"competitor {100 * rivals[rival]:.1f} % ({rival}); with an unrelated question's part, "
        f"{100 * controls['necessity']:.1f} points of accuracy are lost; without anything changed "
        f"{100 * competence:.1f} % are right ({sufficiency['total']} pairs that the choice of the "
        f"part did not see): {call}"
    )
    return {
        "aim": aim,
        "carrier": carrier,
        "sufficiency": sufficiency,
        "competitor": {"name": rival, "share": rivals[rival], "all": rivals},
        "controls": controls,
        "competence": competence,
        "holds": holds,
        "failing": failing,
        "no_part_gives_it": nowhere,
        "not_only_source": not_only_source,
        "line": line,
    }
