"""Has a method learned its task? Where it has not, neither its times nor its controls say anything.

Guessing is right in a tenth to a half of the questions of many tasks, so accuracy is compared with
the share of the test's most frequent answer. Results made before that was recorded have the floor
alone.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from rim.report.leads import against

#: Where answers are free, no single one is frequent: so much must be right, or surely more than
#: another method has.
FLOOR = 0.05


def has_learned(content: dict[str, Any], name: str, reference: str) -> bool:
    """Whether the lower end of the 95 % Wilson interval of its accuracy (the mean of its seeds'
    ends) lies above the most frequent answer's share, and the accuracy not below `FLOOR`.
    """
    if not _beats_guessing(content, name):
        return False
    methods = content["methods"]
    return methods[name]["final"]["mean"] >= FLOOR or _beats_another(methods, name, reference)


def none_beats_guessing(content: dict[str, Any]) -> bool:
    return not any(_beats_guessing(content, name) for name in content["methods"])


def _beats_guessing(content: dict[str, Any], name: str) -> bool:
    share = content.get("commonest_answer")
    if share is None:
        return True  # not known
    return fmean(own["low"] for own in content["methods"][name]["per_seed"]) > share


def _beats_another(methods: dict[str, Any], name: str, reference: str) -> bool:
    if reference not in methods:
        return False
    if name == reference:
        return any(against(methods, n, reference) > 0 for n in methods if n != reference)
    return against(methods, name, reference) < 0


def commonest_text(content: dict[str, Any]) -> str:
    """`the most frequent answer: 10.2 %`; empty where that is not known."""
    share = content.get("commonest_answer")
    return "" if share is None else f"the most frequent answer: {100 * share:.1f} %"


def unlearned_text(content: dict[str, Any], name: str) -> str:
    """`has not learned the task (9.0 % right, ...)`, to stand behind its name."""
    told = f"{100 * content['methods'][name]['final']['mean']:.1f} % right"
    if not _beats_guessing(content, name):
        told += f", not surely more than {commonest_text(content).replace(':', ',')}"
    return f"has not learned the task ({told})"


def told_controls(
    content: dict[str, Any], reference: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """The controls of methods that have learned the task, and sentences on those left out."""
    lost = {n: None for n in content["methods"] if not has_learned(content, n, reference)}
    told, left_out = [], dict[str, None]()
    for control in content["controls"]:
        name, instead, controlled = control["name"].partition(" instead of ")
        about = (name, controlled) if instead else (name.partition(", ")[0],)
        # Of a method trained as a control one of the two will do: then their difference is real.
        if all(each in lost for each in about):
            left_out[about[-1]] = None
        else:
            told.append(control)
    return told, [
        f"{name} {unlearned_text(content, name)}: its controls say nothing and are left out"
        for name in left_out
    ]
