"""Protocol A, transplanting: which part of the cache carries an intermediate value, or the answer?

A part of a source question's cache is written into a recipient's. Two things may come of it, and
they are told apart: the *counterfactual* answer, which has to be computed, from the source's
intermediate value and the recipient's own remaining operations; and the *source's* answer, which a
part that holds the finished answer would hand over.

After Chen et al., "SCIT" (arXiv 2608.27265); what its terms mean for blocks in a prompt is our
reading: see docs/controls.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rim.evaluate.cache_interventions import transplant
from rim.evaluate.protocols.asking import Asking, agree
from rim.evaluate.protocols.carriers import Carrier, carriers
from rim.evaluate.protocols.pairs import Known, Pair
from rim.evaluate.protocols.transplant_verdict import transplant_verdict
from rim.evaluate.statistics import bootstrap_interval, share

#: The part that is named where no part stands out.
ALL = "all blocks"


def run_transplant(
    asking: Asking,
    pairs: Sequence[Pair],
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """All carriers, the controls of the chosen ones, and the verdicts, as JSON has them."""
    recipients = [pair.recipient for pair in pairs]
    sources = [pair.source for pair in pairs]
    clean_NA = _ask(asking, recipients)
    right = agree(asking.chosen(clean_NA), [k.worked.answer for k in recipients])
    rights = right + agree(asking.chosen(_ask(asking, sources)), [k.worked.answer for k in sources])
    tried = carriers(asking)
    results: dict[str, _Patched] = {}
    for carrier in tried:
        results[carrier.name] = _patch(asking, carrier, recipients, sources)
        progress(1)
    rng = random.Random(f"halves {seed}")
    order = rng.sample(range(len(pairs)), len(pairs))
    choosing, scoring = sorted(order[::2]), sorted(order[1::2])
    verdicts = []
    for aim in ("intermediate", "answer"):
        best = _best(tried, results, pairs, aim, choosing)
        controls = _controls(asking, best, pairs, aim, right, scoring)
        progress(4)
        competence = share(rights)["accuracy"]
        nowhere = _no_part_gives(tried, results, pairs, aim, range(len(pairs)))
        found, alone = (
            share([results[name].follows(pairs, aim)[i] for i in scoring])
            for name in (best.name, "question")
        )
        verdicts.append(
            transplant_verdict(
                aim, best.name, found, alone, controls, competence=competence, nowhere=nowhere
            )
        )
        if aim == "intermediate":
            verdicts[-1] |= _step_by_step(tried, results, pairs, choosing, scoring)
    return {
        "pairs": len(pairs),
        "steps": _counts(pair.step for pair in pairs),
        "competence": share(rights),
        "decides": _who_decides(asking, results, pairs),
        "carriers": [_record(c, results[c.name], pairs, clean_NA, asking.answers) for c in tried],
        "verdicts": verdicts,
    }


def _best(
    tried: Sequence[Carrier],
    results: dict[str, _Patched],
    pairs: Sequence[Pair],
    aim: str,
    choosing: Sequence[int],
) -> Carrier:
    """The part of the blocks that gives what is wanted most often; all blocks where none does, for
    the first of equals would be named for no reason.
    """
    parts = [c for c in tried if c.is_blocks]
    follows = {c.name: results[c.name].follows(pairs, aim) for c in parts}
    hits = {name: sum(marks[i] for i in choosing) for name, marks in follows.items()}
    if not any(hits.values()):
        return next(c for c in parts if c.name == ALL)
    return max(parts, key=lambda c: hits[c.name])


def _no_part_gives(
    tried: Sequence[Carrier],
    results: dict[str, _Patched],
    pairs: Sequence[Pair],
    aim: str,
    among: Sequence[int],
) -> bool:
    parts = (results[c.name].follows(pairs, aim) for c in tried if c.is_blocks)
    return not any(follows[i] for follows in parts for i in among)


def _who_decides(
    asking: Asking, results: dict[str, _Patched], pairs: Sequence[Pair]
) -> dict[str, Any]:
    """Blocks of one question beside another question: whose answer comes? Nothing is hidden, so
    the model meets no mask that it was not trained with.
    """
    blocks = share(results[ALL].follows(pairs, "answer"))
    kept = agree(results["question"].given, [pair.recipient.worked.answer for pair in pairs])
    question = share(kept)
    line = (
        "blocks of one question behind the text of another: the answer is that of the blocks in "
        f"{100 * blocks['accuracy']:.1f} % of the pairs where the blocks are exchanged, and in "
        f"{100 * question['accuracy']:.1f} % where the text is"
    )
    encoder = asking.reasoner.encoder
    if not encoder.answer_has_opening(encoder.prompt("?", asking.blocks)):
        line += (
            "; nothing opens the answer here, so the last block's last token, which says it, is "
            "computed anew each time, from the question that stands there"
        )
    return {"blocks": blocks, "question": question, "line": line}


def _step_by_step(
    tried: Sequence[Carrier],
    results: dict[str, _Patched],
    pairs: Sequence[Pair],
    choosing: Sequence[int],
    scoring: Sequence[int],
) -> dict[str, Any]:
    """For the value of each step its own part, chosen on one half and scored on the other: a value
    may lie in blocks where others do not, which all steps together would hide.
    """
    by_step: dict[str, Any] = {}
    told = []
    for step in sorted({pair.step for pair in pairs}):
        choose, score = ([i for i in half if pairs[i].step == step] for half in (choosing, scoring))
        if not choose or not score:
            continue
        best = _best(tried, results, pairs, "intermediate", choose).name
        follows = results[best].follows(pairs, "intermediate")
        row = share([follows[i] for i in score])
        by_step[str(step)] = {"carrier": best, **row}
        nowhere = _no_part_gives(tried, results, pairs, "intermediate", [*choose, *score])
        found = f"{100 * row['accuracy']:.0f} % of {row['total']} ({best})"
        told.append(f"step {step}: {'no part gives it' if nowhere else found}")
    if not by_step:
        return {"by_step": {}}
    step_line = f"step by step, each with its own part: {'; '.join(told)}"
    return {"by_step": by_step, "step_line": step_line}


def num_rounds(asking: Asking) -> int:
    """How often `run_transplant` reports progress, in units."""
    return len(carriers(asking)) + 8


@dataclass(frozen=True)
class _Patched:
    logprobs_NA: Tensor
    given: list[str]

    def follows(self, pairs: Sequence[Pair], aim: str) -> list[bool]:
        return agree(self.given, [_wanted(pair, aim) for pair in pairs])


def _wanted(pair: Pair, aim: str) -> str:
    return pair.counterfactual if aim == "intermediate" else pair.source.worked.answer


def _ask(asking: Asking, known: Sequence[Known]) -> Tensor:
    return asking.logprobs([k.question for k in known])


def _patch(
    asking: Asking, carrier: Carrier, recipients: Sequence[Known], sources: Sequence[Known]
) -> _Patched:
    logprobs_NA = asking.logprobs(
        [k.question for k in recipients],
        _between(carrier, recipients, sources),
        live=carrier.live,
    )
    return _Patched(logprobs_NA, asking.chosen(logprobs_NA))


def _between(carrier: Carrier, recipients: Sequence[Known], sources: Sequence[Known]) -> Any:
    partners = {r.question: s.question for r, s in zip(recipients, sources, strict=True)}
    return transplant(partners, carrier.part, carrier.what)


def _controls(
    asking: Asking,
    carrier: Carrier,
    pairs: Sequence[Pair],
    aim: str,
    right: Sequence[bool],
    scoring: Sequence[int],
) -> dict[str, Any]:
    """The chosen carrier with other sources, and freely decoded; on the scoring pairs."""
    chosen = [pairs[i] for i in scoring]
    recipients = [pair.recipient for pair in chosen]
    given = {
        name: _patch(asking, carrier, recipients, [getattr(p, name) for p in chosen]).given
        for name in ("same_value", "same_answer", "unrelated")
    }
    wanted = [_wanted(pair, aim) for pair in chosen]
    decoded = asking.decode(
        [k.question for k in recipients],
        _between(carrier, recipients, [pair.source for pair in chosen]),
        live=carrier.live,
    )
    corrupted = agree(given["unrelated"], [k.worked.answer for k in recipients])
    clean = sum(right[i] for i in scoring) / len(scoring)
    return {
        # How often these sources, too, give the answer that the verdict is about.
        **{name: share(agree(answers, wanted)) for name, answers in given.items()},
        "decoded": share(agree(decoded, wanted)),
        "clean": clean,
        "corrupted": share(corrupted),
        "necessity": clean - sum(corrupted) / len(corrupted),
    }


def _record(
    carrier: Carrier,
    patched: _Patched,
    pairs: Sequence[Pair],
    clean_NA: Tensor,
    answers: tuple[str, ...],
) -> dict[str, Any]:
    own = agree(patched.given, [pair.recipient.worked.answer for pair in pairs])
    follows = {aim: patched.follows(pairs, aim) for aim in ("intermediate", "answer")}
    by_step: dict[str, Any] = {}
    for step in sorted({pair.step for pair in pairs}):
        at = [i for i, pair in enumerate(pairs) if pair.step == step]
        by_step[str(step)] = share([follows["intermediate"][i] for i in at])
    return {
        "name": carrier.name,
        "part": carrier.part.kind,
        "number": carrier.part.number,
        "keys": carrier.what.keys,
        "values": carrier.what.values,
        "layers": None if carrier.what.layers is None else list(carrier.what.layers),
        "live": carrier.live,
        "counterfactual": share(follows["intermediate"]),
        "source": share(follows["answer"]),
        "recipient": share(own),
        "by_step": by_step,
        "logprob_difference": _difference(patched.logprobs_NA, clean_NA, pairs, answers),
    }


def _difference(
    patched_NA: Tensor, clean_NA: Tensor, pairs: Sequence[Pair], answers: tuple[str, ...]
) -> dict[str, float]:
    """By how much the counterfactual answer gained on the recipient's own, in nats."""
    gained = []
    for i, pair in enumerate(pairs):
        there, own = answers.index(pair.counterfactual), answers.index(pair.recipient.worked.answer)
        moved = patched_NA[i] - clean_NA[i]
        gained.append(float(moved[there] - moved[own]))
    low, high = bootstrap_interval(gained)
    return {"mean": sum(gained) / len(gained), "low": low, "high": high}


def _counts(steps: Any) -> dict[str, int]:
    listed = list(steps)
    return {str(step): listed.count(step) for step in sorted(set(listed))}
