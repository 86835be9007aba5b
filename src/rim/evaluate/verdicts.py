"""One sentence a control: what it changes, on how many questions, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rim.evaluate.statistics import joint_p, mcnemar
from rim.report.text import p_cell as p_cell
from rim.report.text import p_text

LEVEL = 0.05
#: The group of `rim.evaluate.controls` that is told in one line.
SWEEP = "number of blocks"


def verdict(
    name: str,
    reference: Sequence[str],
    control: Sequence[str],
    follows: Sequence[tuple[float, float | None]] = (),
) -> dict[str, Any]:
    """Compare a control with what it controls, seed by seed on the same questions.

    Args:
        reference: right-or-wrong of each seed, strings of 0 and 1.
        control: those of the control; its questions may be the first part of the reference's.
        follows: shares of answers that are another question's, whose blocks were put in, and those
            that are a third question's; None where that is not known.

    The claim is made only if it holds in every seed; p is `joint_p` of the seeds'.
    """
    pairs = [(ref[: len(con)], con) for ref, con in zip(reference, control, strict=True)]
    before, after = (
        fmean(t.count("1") / len(t) for t in texts) for texts in zip(*pairs, strict=True)
    )
    tests = [mcnemar(ref, con) for ref, con in pairs]
    p = joint_p(tests)
    shares = [(ref.count("1") / len(ref), con.count("1") / len(con)) for ref, con in pairs]
    change = change_text(shares, [test.p for test in tests])
    questions, seeds = len(pairs[0][1]), len(pairs)
    many = f"{questions} questions, {seeds} seed{'s' if seeds > 1 else ''}"
    share = fmean(theirs for theirs, _ in follows) if follows else None
    by_chance = [third for _, third in follows if third is not None]
    chance = fmean(by_chance) if follows and len(by_chance) == len(follows) else None
    other = "" if share is None else f"; {100 * share:.1f} % give the other question's answer"
    if chance is not None:
        other += f" ({100 * chance:.1f} % a third one's, as chance would)"
    agreed = len(pairs) == 1 or p < LEVEL
    test = f", McNemar {p_text(p)}{' in every seed' if seeds > 1 else ''}" if agreed else ""
    return {
        "name": name,
        "follows": share,
        "follows_by_chance": chance,
        "from": before,
        "to": after,
        "questions": questions,
        "seeds": seeds,
        "p": p,
        "per_seed": [
            {"from": a, "to": b, **({"follows": follows[i][0]} if len(follows) == seeds else {})}
            for i, (a, b) in enumerate(shares)
        ],
        "line": f"{name}: accuracy {change} ({many}{test}){other}",
    }


def change_text(shares: Sequence[tuple[float, float]], p_values: Sequence[float]) -> str:
    """What happened to accuracy, from and to, seed by seed: "falls from 97.0 to 19.0 %".

    Where not every seed alone shows the same, it says how many show what, and each seed's numbers.

    Args:
        shares: accuracy before and after, of each seed. p_values: McNemar's, of each seed.
    """
    before, after = (100 * fmean(column) for column in zip(*shares, strict=True))
    moved = f"from {before:.1f} to {after:.1f} %"
    sure = [
        ("falls" if a > b else "rises") if p < LEVEL else "none"
        for (a, b), p in zip(shares, p_values, strict=True)
    ]
    kinds, count = set(sure), len(sure)
    if kinds in ({"falls"}, {"rises"}):
        return f"{sure[0]} {moved}"
    if all(f"{100 * a:.1f}" == f"{100 * b:.1f}" for a, b in shares):
        stays = ", ".join(dict.fromkeys(f"{100 * a:.1f}" for a, _ in shares))
        return f"stays at {stays} %{' in every seed' if count > 1 else ''}"
    if count == 1:
        return f"shows no sure change: {moved}"
    each = ", ".join(f"{100 * a:.1f} to {100 * b:.1f}" for a, b in shares)
    if kinds == {"none"}:
        return f"shows no sure change in any seed: {each} %"
    told = [f"{kind} in {sure.count(kind)}" for kind in ("falls", "rises") if kind in kinds]
    rest = f", no sure change in {sure.count('none')}" if "none" in kinds else ""
    return f"depends on the seed: it {' and '.join(told)} of {count}{rest} ({each} %)"


def control_verdicts(
    name: str,
    right: Sequence[str],
    controls: Sequence[Sequence[dict[str, Any]]],
    steps: Sequence[Sequence[int]] = (),
) -> list[dict[str, Any]]:
    """What was done to one method's trained models, each control against the model as it is.

    Args:
        right: right-or-wrong of the models as they are, one string a seed.
        controls: for each seed the records of `rim.evaluate.controls.run_controls`.
        steps: for each seed how many steps its questions have; left out: not known.
    """
    outcomes: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for text, records in zip(right, controls, strict=True):
        for record in records:
            outcomes.setdefault(record["name"], []).append((text, record))
    sweep = {n: pairs for n, pairs in outcomes.items() if pairs[0][1]["group"] == SWEEP}
    verdicts = [
        verdict(
            f"{name}, {control}",
            [text for text, _ in pairs],
            [record["right"] for _, record in pairs],
            [(r["follows"], r.get("follows_by_chance")) for _, r in pairs if "follows" in r],
        )
        for control, pairs in outcomes.items()
        if control not in sweep
    ]
    if sweep:
        shares = {n: [record["right"] for _, record in pairs] for n, pairs in sweep.items()}
        verdicts.append(_sweep_verdict(name, shares, steps))
    return verdicts


def _sweep_verdict(
    name: str, right: Mapping[str, Sequence[str]], steps: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Accuracy under each number of blocks at test time, in one line and without a test, and by the
    steps of a question.
    """
    means = {
        control: fmean(t.count("1") / len(t) for t in texts) for control, texts in right.items()
    }
    listed = ", ".join(f"{100 * mean:.1f}" for mean in means.values())
    names = list(means)
    which = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    return {
        "name": f"{name}, number of blocks",
        "accuracies": means,
        "by_steps": {control: _by_steps(texts, steps) for control, texts in right.items()},
        "line": f"{name}, number of blocks at test time, {which}: {listed} %",
    }


def _by_steps(texts: Sequence[str], steps: Sequence[Sequence[int]]) -> dict[str, float]:
    """Accuracy by number of steps, over the questions of all seeds; empty where not known."""
    marks: dict[int, list[bool]] = {}
    for text, own in zip(texts, steps, strict=False):
        for mark, count in zip(text, own, strict=False):
            marks.setdefault(count, []).append(mark == "1")
    return {str(count): fmean(found) for count, found in sorted(marks.items())}
