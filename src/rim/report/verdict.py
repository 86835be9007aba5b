"""Is it worth it? A comparison in words: accuracy, time, the blocks, and what follows.

Which differences are called sure is said in `rim.report.leads`, and which methods have learned the
task in `rim.report.learned`: of others nothing is said about blocks and times.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from rim.report.leads import LEVEL, against, by_seed, lead
from rim.report.learned import commonest_text, has_learned, none_beats_guessing, unlearned_text
from rim.report.text import percent

_AFTER = "direct_after_grounding"
_LONGER = "direct_longer"
_WORDS = {
    "direct": "direct",
    "cot": "chain of thought",
    "rim": "RiM",
    _AFTER: "direct answers after RiM's first stage",
    _LONGER: "direct answers trained longer",
}
#: A chain of thought no longer than so many times an answer given at once has no steps.
_NO_STEPS = 1.25
#: With fewer questions a difference must be large to be sure.
FEW = 100


def verdict(result: dict[str, Any]) -> dict[str, list[str]]:
    """Sentences for each task whose reference method is finished, beside another one."""
    reference = result["reference"]
    return {
        task: _task_verdict(content, reference)
        for task, content in result["tasks"].items()
        if reference in content["methods"] and len(content["methods"]) > 1
    }


def _task_verdict(content: dict[str, Any], reference: str) -> list[str]:
    methods = {n: row for n, row in content["methods"].items() if not row.get("control_of")}
    order = [reference, *(name for name in methods if name != reference)]
    accuracies = ", ".join(f"{_word(name)} {percent(methods[name]['final'], 0)}" for name in order)
    questions = content["data"]["tests"]["test"]["examples"]
    about = [f"{questions} test questions, {seeds_in_words(methods.values())}"]
    about += [text for text in [commonest_text(content)] if text]
    lines = [f"{accuracies}; {'; '.join(about)}."]
    lines += [
        f"{_word(name)[:1].upper()}{_word(name)[1:]} had another budget: {row['exempt']}."
        for name, row in methods.items()
        if row.get("exempt")
    ]
    # Models that have not learned often write on to the limit, so that even times mislead.
    if not any(has_learned(content, name, reference) for name in methods):
        return [*lines, _nothing_learned(content)]
    if not has_learned(content, reference, reference):
        return [*lines, *_not_learned(content, methods, reference)]
    told = (
        *_times(content, methods, reference),
        _blocks(content, reference),
        _taught(methods, reference, questions),
    )
    lines += [line for line in told if line]
    if "direct" in methods and reference != "direct":
        lines.append(_worth(content, methods, reference, questions))
    return lines


def _nothing_learned(content: dict[str, Any]) -> str:
    why = ""
    if none_beats_guessing(content):
        why = f" (none is surely above {commonest_text(content).replace(':', ',')})"
    return (
        f"None of them has learned the task{why}, so this says nothing about memory blocks. "
        "Train for longer."
    )


def _not_learned(content: dict[str, Any], methods: dict[str, Any], reference: str) -> list[str]:
    """All that can be said of a reference that has not learned what another method has."""
    name = _word(reference)
    lines = [
        f"{name} {unlearned_text(content, reference)}, so its times and controls say nothing. "
        "Train it for longer."
    ]
    if "direct" in methods and reference != "direct":
        lines.append(
            _not_worth(name)
            if against(methods, "direct", reference) < 0
            else f"So not shown to be worth it: {name} has not learned the task."
        )
    return lines


def _not_worth(name: str) -> str:
    return f"So not worth it as trained here: direct answers are surely better than {name}."


def _word(name: str) -> str:
    return _WORDS.get(name, name)


def _times(content: dict[str, Any], methods: dict[str, Any], reference: str) -> list[str]:
    own = methods[reference].get("latency")
    said, silent = [], []
    for name, called in (("cot", "chain of thought"), ("direct", "direct answers")):
        timed = methods.get(name, {}).get("latency")
        if name == reference or not own or not timed or not timed_together(own, timed):
            continue
        if name == "cot" and (why := _why_untold(content, methods, reference)):
            silent.append(f"Chain of thought {why}, so its time says nothing.")
            continue
        said.append(f"{_speed(timed['answer_ms']['mean'] / own['answer_ms']['mean'])} {called}")
    if not said:
        return silent
    both = " and ".join(said)
    told = f"{_word(reference)} answers {both} on this machine, one question at a time."
    return [told, *silent]


def _speed(ratio: float) -> str:
    """How fast, where the other takes so many times as long."""
    more = f"{max(ratio, 1 / ratio):.1f}"
    if more == "1.0":
        return "as fast as"
    return f"{more} x {'faster' if ratio > 1 else 'slower'} than"


def _why_untold(content: dict[str, Any], methods: dict[str, Any], reference: str) -> str:
    """Why the time of chain of thought is none of writing steps; empty where it is one."""
    at_once = [
        methods[name]["latency"]["tokens"]["mean"]
        for name in ("direct", reference)
        if methods.get(name, {}).get("latency")
    ]
    tokens, few = methods["cot"]["latency"]["tokens"]["mean"], min(at_once)
    if tokens <= _NO_STEPS * few:
        return f"writes no steps yet ({tokens:.1f} tokens, an answer given at once {few:.1f})"
    return "" if has_learned(content, "cot", reference) else unlearned_text(content, "cot")


def timed_together(own: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether another method's times were taken in turns with a method's own: else their ratio
    would be one of sessions or machines, too. (Results of before this was kept count as such.)
    """
    return "runs" not in other or all(runs in own.get("runs", ()) for runs in other["runs"])


def _blocks(content: dict[str, Any], reference: str) -> str:
    """Whether the blocks are needed, by the control that takes them away, and whether what is in
    them is, by the one that puts another question's there.
    """
    by_name = {verdict["name"]: verdict for verdict in content["controls"]}
    without = by_name.get(f"{reference}, no blocks")
    if without is None:
        return ""
    before, after = (100 * without[key] for key in ("from", "to"))
    shares = f"{after:.0f} % are right without, {before:.0f} % with them"
    if not _falls(without):
        return f"Nothing shows that the blocks are needed: {shares}."
    swapped = by_name.get(f"{reference}, blocks of another question")
    refused = content["methods"].get(reference, {}).get("controls_refused", {})
    if "blocks of another question" in refused:
        return (
            f"The prompt needs its blocks ({shares}); whether it needs what is in them cannot be "
            "measured with this base."
        )
    if swapped is None or _falls(swapped):
        return f"The blocks are needed: {shares}."
    return (
        f"The prompt needs its blocks ({shares}), but nothing shows that it needs what is in them: "
        f"{100 * swapped['to']:.0f} % are right with another question's."
    )


def _taught(methods: dict[str, Any], reference: str, questions: int) -> str:
    """Whether blocks are needed to answer, or only to learn: by direct answers that go on from the
    stage in which blocks learned the steps. Nothing where blocks are not known to have taught
    anything.
    """
    if _AFTER not in methods or "any_block" not in methods[reference]:
        return ""
    if "direct" in methods and against(methods, "direct", reference) <= 0:
        return ""
    own, after = (f"{100 * methods[n]['final']['mean']:.0f} %" for n in (reference, _AFTER))
    beside = f"{_word(_AFTER)} are right in {after} ({_word(reference)} {own})"
    side = against(methods, _AFTER, reference)
    if side > 0:
        return (
            f"With as many steps blocks help to answer, and not only to learn: {beside}. Longer "
            "training without blocks may catch up."
        )
    sure = "surely better" if side < 0 else f"not surely worse{_few(questions)}"
    return (
        f"Without blocks, {beside}, {sure}: what the blocks taught may not need them to answer "
        f"(the model is the run {_AFTER})."
    )


def _falls(control: dict[str, Any]) -> bool:
    return control["p"] < LEVEL and control["to"] < control["from"]


def seeds_in_words(rows: Iterable[dict[str, Any]]) -> str:
    """`3 seeds`; `2 to 3 seeds` where some methods have fewer."""
    counts = sorted({len(row["seeds"]) for row in rows})
    if counts[-1:] == [1]:
        return "one seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _worth(content: dict[str, Any], methods: dict[str, Any], reference: str, questions: int) -> str:
    """Say whether the reference is worth it, beside direct answers and chain of thought."""
    name = _word(reference)
    over_direct = against(methods, "direct", reference)
    few = _few(questions)
    if over_direct < 0:
        return _not_worth(name)
    if over_direct == 0:
        return (
            f"So not shown to be worth it: {name} is not surely better than direct answers{few}. "
            "More training steps, more examples or a larger base may change that."
        )
    if _LONGER in methods and against(methods, _LONGER, reference) <= 0:
        longer = percent(methods[_LONGER]["final"], 0)
        return (
            f"So not shown to be worth it: {name} is surely better than direct answers after as "
            f"many steps, but not than those trained longer: {longer}{few}."
        )
    if "cot" not in methods:
        return f"So worth it over direct answers: {name} is surely better."
    over_cot = against(methods, "cot", reference)
    if over_cot > 0 and not has_learned(content, "cot", reference):
        return (
            f"So worth it over direct answers: {name} is surely better. Chain of thought has not "
            "learned the task: train it for longer to compare."
        )
    if over_cot > 0:
        return f"So worth it: {name} is surely better than direct answers and chain of thought."
    if over_cot == 0:
        beside = _beside_cot(methods, reference)
        return f"So worth it over direct answers: {name} is surely better. {beside}{few}."
    gains = _gains(methods, reference)
    if gains is None:
        return f"So a trade: chain of thought is surely better than {name}."
    return (
        f"So a trade: {name} has {gains[0]:.0f} of the {gains[1]:.0f} points that chain of "
        "thought gains over direct answers, at the times above."
    )


def _few(questions: int) -> str:
    few = f" (with {questions} test questions only large differences are sure)"
    return few if questions < FEW else ""


def _beside_cot(methods: dict[str, Any], reference: str) -> str:
    """How far chain of thought is ahead or behind where that is not sure, with every seed."""
    by, own, cot = (
        lead(methods, "cot", reference),
        *map(by_seed, (methods[reference], methods["cot"])),
    )
    if by is None:
        return "No seed has it and chain of thought"
    leads = [100 * (own[seed] - cot[seed]) for seed in own if seed in cot]
    each = f" ({', '.join(f'{points:+.1f}' for points in leads)} by seed)" if len(leads) > 1 else ""
    word = "above" if by > 0 else "below"
    return f"It is {abs(100 * by):.1f} points {word} chain of thought{each}, which is not sure"


def _gains(methods: dict[str, Any], reference: str) -> tuple[float, float] | None:
    """Points of the reference and of chain of thought over direct answers, of the seeds that all
    three have.
    """
    names = (reference, "direct", "cot")
    own, direct, cot = (by_seed(methods[name]) for name in names)
    shared = [seed for seed in own if seed in direct and seed in cot]
    if not shared:
        return None
    gained, all_of_it = (
        fmean(100 * (better[seed] - direct[seed]) for seed in shared) for better in (own, cot)
    )
    return gained, all_of_it
