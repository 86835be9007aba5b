"""Protocol B, interchange: in which block and in which layers lies the value after step t?

The high-level model is the task's own: a value after each step, and what follows from it. A block's
states, in one band of layers, are taken from another question; the blocks behind it run again where
the model allows it. Interchange accuracy is the share of pairs whose answer becomes the one that
the high-level model says for its value after step t. Beside the best place stand the same share
with a random half of the states' directions, and with an unrelated question's states.

After causal abstraction (Geiger et al., arXiv 2301.04709); whole block states, no learned
subspaces.

Shape legend: B prompts, H key heads, C columns, D head width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rim.core.layers import num_layers
from rim.evaluate.cache_interventions import Part, Slice, transplant
from rim.evaluate.protocols.asking import Asking, agree, changed_by
from rim.evaluate.protocols.carriers import bands
from rim.evaluate.protocols.pairs import Known, Pair
from rim.evaluate.statistics import share
from rim.infer.prefill import Between

#: A step with fewer pairs in either half is left out.
LEAST_PAIRS = 10


@dataclass(frozen=True)
class _Place:
    block: int
    layers: range

    @property
    def name(self) -> str:
        return f"block {self.block}, layers {self.layers[0] + 1} to {self.layers[-1] + 1}"


def _places(asking: Asking) -> list[_Place]:
    layers = num_layers(asking.reasoner.model)
    wanted = [range(layers), *bands(layers)]
    return [_Place(block, band) for block in range(1, asking.blocks + 1) for band in wanted]


def num_rounds(asking: Asking) -> int:
    """How often `run_interchange` reports progress, in units."""
    return len(_places(asking)) + 2


def run_interchange(
    asking: Asking,
    pairs: Sequence[Pair],
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """The map and, for every step, its best place against the controls, as JSON has them.

    The best place of a step is chosen on one half of the pairs and scored on the other.
    """
    recipients = [pair.recipient for pair in pairs]
    sources = [pair.source for pair in pairs]
    wanted = [pair.counterfactual for pair in pairs]
    follows: dict[_Place, list[bool]] = {}
    for place in _places(asking):
        follows[place] = agree(_given(asking, place, recipients, sources), wanted)
        progress(1)
    rng = random.Random(f"halves {seed}")
    order = rng.sample(range(len(pairs)), len(pairs))
    halves = order[::2], order[1::2]
    steps = []
    for step in sorted({pair.step for pair in pairs}):
        choosing, scoring = ([i for i in half if pairs[i].step == step] for half in halves)
        if min(len(choosing), len(scoring)) < LEAST_PAIRS:
            continue
        at = choosing + scoring
        best = max(follows, key=lambda place: sum(follows[place][i] for i in choosing))
        scored = [pairs[i] for i in scoring]
        own = [pair.recipient for pair in scored]
        subspace = _given(asking, best, own, [p.source for p in scored], _random_half(seed))
        unrelated = _given(asking, best, own, [p.unrelated for p in scored])
        result = share([follows[best][i] for i in scoring])
        controls = {
            "random_half": share(agree(subspace, [p.counterfactual for p in scored])),
            "unrelated": share(agree(unrelated, [p.counterfactual for p in scored])),
        }
        steps.append(
            {
                "step": step,
                "map": [
                    {
                        "block": place.block,
                        "layers": list(place.layers),
                        **share([marks[i] for i in at]),
                    }
                    for place, marks in follows.items()
                ],
                "best": {"block": best.block, "layers": list(best.layers), **result},
                **controls,
                "line": _line(step, best, result, controls, len(asking.answers))
                if any(marks[i] for marks in follows.values() for i in at)
                else f"value after step {step}: interchanging it gives the answer that follows in "
                f"no block and no pair of {len(at)}",
            }
        )
    progress(2)
    return {"pairs": len(pairs), "later_blocks_run_again": asking.can_run_live, "steps": steps}


def _given(
    asking: Asking,
    place: _Place,
    recipients: Sequence[Known],
    sources: Sequence[Known],
    wrap: Callable[[Between], Between] = lambda between: between,
) -> list[str]:
    partners = {r.question: s.question for r, s in zip(recipients, sources, strict=True)}
    between = wrap(transplant(partners, Part("block", place.block), Slice(layers=place.layers)))
    live = asking.blocks - place.block if asking.can_run_live else 0
    return asking.chosen(asking.logprobs([r.question for r in recipients], between, live=live))


def _random_half(seed: int) -> Callable[[Between], Between]:
    """Only what an intervention changes in a random half of the directions of every head."""

    def change(before_BHCD: Tensor, after_BHCD: Tensor, name: str, layer: int) -> Tensor:
        width = after_BHCD.shape[-1]
        generator = torch.Generator().manual_seed(1000 * seed + 2 * layer + (name == "values"))
        basis_DD, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
        half_DR = basis_DD[:, : width // 2].to(after_BHCD)
        return before_BHCD + (after_BHCD - before_BHCD) @ half_DR @ half_DR.T

    return lambda between: changed_by(between, change)


def _line(
    step: int, best: _Place, result: dict[str, Any], controls: dict[str, Any], answers: int
) -> str:
    return (
        f"value after step {step}: best in {best.name}, where interchanging it gives the answer "
        f"that follows in {100 * result['accuracy']:.1f} % "
        f"({100 * result['low']:.1f}-{100 * result['high']:.1f}) of {result['total']} pairs; a "
        f"random half of the directions: {100 * controls['random_half']['accuracy']:.1f} %; an "
        f"unrelated question's: {100 * controls['unrelated']['accuracy']:.1f} %; guessing: "
        f"{100 / answers:.1f} %"
    )
