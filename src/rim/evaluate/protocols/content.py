"""Protocol C, presence or content: does it matter what stands in the blocks, or that they stand
there?

The same questions, with blocks as they are, with the mean of other questions' blocks, with noise of
the same size, with another question's blocks, with zeros, hidden (their places kept), and without.
If all but the first two are alike, presence is what counts. And the questions with one fact
changed, whose right answer the task knows: a model that computes follows the change.

Shape legend: B prompts, H key heads, C columns, D head width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rim.config import GeneratorConfig
from rim.data.examples import DataError, Example
from rim.data.tasks import READERS
from rim.evaluate.accuracy import flags
from rim.evaluate.cache_interventions import BLOCKS, hide, transplant, zero
from rim.evaluate.controls import choose_partners
from rim.evaluate.protocols.asking import Asking, agree, changed_by
from rim.evaluate.protocols.pairs import Known
from rim.evaluate.statistics import share
from rim.evaluate.verdicts import verdict
from rim.infer.prefill import Between

_TRIES = 50  # changed facts looked at until one changes the answer


def conditions(partners: dict[str, str], seed: int) -> dict[str, Between]:
    """By name, in the order in which less and less is left of a block's content."""
    return {
        "mean of other questions' blocks": _among_batch(_mean),
        "another question's blocks": transplant(partners),
        "noise of the same size": _among_batch(_noise(seed)),
        "zeros": zero(),
        "hidden, places kept": hide(BLOCKS),
    }


def num_rounds(asking: Asking) -> int:
    """How often `run_content` reports progress, in units."""
    return 9


def run_content(
    asking: Asking,
    known: Sequence[Known],
    task: str,
    config: GeneratorConfig,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """All conditions and the rewritten questions, as JSON has them.

    Questions without another of their length are left out: nobody else's blocks fit them.
    """
    asking = replace(asking, batch_size=max(3, asking.batch_size))  # a mean needs neighbours
    given = len(known)
    known = _with_company(asking, known)
    questions = [k.question for k in known]
    golds = [k.worked.answer for k in known]

    def right(between: Between | None = None, blocks: int | None = None) -> str:
        given = asking.chosen(asking.logprobs(questions, between, blocks=blocks))
        progress(1)
        return flags(agree(given, golds))

    baseline = right()
    partners = _partners(asking, known)
    found = {name: right(between) for name, between in conditions(partners, seed).items()}
    found["removed"] = right(blocks=0)
    verdicts = [verdict(name, [baseline], [text]) for name, text in found.items()]
    rewritten = _rewritten(asking, known, task, config, seed)
    progress(2)
    return {
        "questions": len(known),
        "left_out": given - len(known),
        "batch_size": asking.batch_size,
        "right": {"as they are": baseline, **found},
        "accuracy": {
            name: share([mark == "1" for mark in text])
            for name, text in {"as they are": baseline, **found}.items()
        },
        "rewritten": rewritten,
        "verdicts": [*verdicts, {"name": "rewritten", "line": rewritten["line"]}],
    }


def _with_company(asking: Asking, known: Sequence[Known]) -> list[Known]:
    """Keep the questions beside which there is another of their length with another answer.

    Raises:
        DataError: there are none.
    """
    groups = list(asking.batches([k.question for k in known]))
    kept = sorted(i for g in groups if len({known[i].worked.answer for i in g}) > 1 for i in g)
    if not kept:
        raise DataError(
            "no two of these questions are equally long and have different answers: blocks cannot "
            "be exchanged"
        )
    return [known[i] for i in kept]


def _partners(asking: Asking, known: Sequence[Known]) -> dict[str, str]:
    """For each question another of its length, and with another answer."""
    found: dict[str, str] = {}
    for group in asking.batches([k.question for k in known]):
        examples = [Example(known[i].question, (), known[i].worked.answer) for i in group]
        found |= {question: o.question for question, o in choose_partners(examples).items()}
    return found


def _rewritten(
    asking: Asking, known: Sequence[Known], task: str, config: GeneratorConfig, seed: int
) -> dict[str, Any]:
    """Each question with one fact changed, such that the answer is another."""
    rng = random.Random(f"rewrite {seed}")
    changed: list[tuple[Known, Known]] = []
    for k in known:
        for _ in range(_TRIES):
            question = k.worked.rewrite(rng)
            worked = READERS[task](config, question)
            if worked is not None and worked.answer != k.worked.answer:
                changed.append((k, Known(question, worked)))
                break
    given = asking.chosen(asking.logprobs([new.question for _, new in changed]))
    before = asking.chosen(asking.logprobs([old.question for old, _ in changed]))
    follow = agree(given, [new.worked.answer for _, new in changed])
    stay = agree(given, before)
    both = share(follow), share(stay)
    line = (
        f"one fact of the question changed: {100 * both[0]['accuracy']:.1f} % "
        f"({100 * both[0]['low']:.1f}-{100 * both[0]['high']:.1f}) of {len(changed)} give the new "
        f"right answer, {100 * both[1]['accuracy']:.1f} % what the model said before"
    )
    return {"questions": len(changed), "follow": both[0], "stay": both[1], "line": line}


def _among_batch(
    change: Callable[[Tensor, str, int], Tensor],
) -> Between:
    """The states of all blocks, changed; a batch has prompts of one length, so that a column is the
    same token at the same position in each.
    """

    def altered(filled: Any) -> None:
        columns = [filled.column(0, index) for index in BLOCKS.columns(filled.prompts[0])]

        def only_blocks(before: Tensor, after: Tensor, name: str, layer: int) -> Tensor:
            changed = before.clone()
            changed[:, :, columns] = change(before[:, :, columns], name, layer)
            return changed

        changed_by(zero(), only_blocks)(filled)

    return altered


def _mean(states_BHCD: Tensor, name: str, layer: int) -> Tensor:
    """Average the other questions' states: with its own it would keep a part of its blocks."""
    others = states_BHCD.shape[0] - 1
    return (states_BHCD.sum(0, keepdim=True) - states_BHCD) / others


def _noise(seed: int) -> Callable[[Tensor, str, int], Tensor]:
    def change(states_BHCD: Tensor, name: str, layer: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + 2 * layer + (name == "values"))
        noise_BHCD = torch.randn(states_BHCD.shape, generator=generator).to(states_BHCD)
        norms = states_BHCD.norm(dim=-1, keepdim=True), noise_BHCD.norm(dim=-1, keepdim=True)
        return noise_BHCD * norms[0] / norms[1]

    return change
