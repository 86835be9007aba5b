"""What a reproduction takes on one H100, computed and not measured.

Tokens come from laying out one typical example with the recipe's own method and stages. Time: the
multiplications of a forward pass are 2 a parameter and token; backward costs twice that, or once
where the weights do not train (LoRA). The device reaches `UTILISATION` of its peak; every pass over
a layer takes at least `LAYER_SECONDS`, which is what recurrent methods pay. Memory: weights,
gradients, Adam's two moments, and what a micro-batch keeps for the backward pass. Attention's own
products, validation and loading are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from rim.config import Recipe, StageConfig
from rim.core.layout import Trunk, lay_out
from rim.data.examples import Example
from rim.methods import METHODS
from rim.study.reproduce.catalogue import Sizes

#: Training questions of GSM8K-Aug, and a typical one in tokens: about the means of its 500
#: validation questions in SmolLM2's. The stop token is in steps and answer.
EXAMPLES = 385_620
STEPS, QUESTION, STEP, ANSWER = 3, 61, 11, 5

PEAK = 989e12  # H100 SXM, dense bfloat16 products a second
UTILISATION = 0.3
LAYER_SECONDS = 1.5e-4  # to start the kernels of one layer, forward
GIB = 2**30


@dataclass(frozen=True)
class StageCost:
    name: str
    steps: int
    tokens: int  # of an example that enter the model, every pass counted
    hours: float


@dataclass(frozen=True)
class Cost:
    stages: tuple[StageCost, ...]
    memory_gib: float

    @property
    def hours(self) -> float:
        return sum(stage.hours for stage in self.stages)


def cost_of(recipe: Recipe, sizes: Sizes) -> Cost:
    """Compute the cost of one run (one seed), without the run that it starts from."""
    rank = recipe.model.lora.rank if recipe.model.tuning == "lora" else 0
    stages = tuple(_stage(recipe, stage, sizes, rank) for stage in recipe.stages)
    peak = max(_activations(recipe, stage, sizes) for stage in recipe.stages)
    weights, adapter = _weights(sizes), _adapter(sizes, rank)
    total = weights + sizes.vocabulary * sizes.width
    # float32: weights, and for what trains its gradient and two moments besides; autocast's copies
    # take two bytes more.
    stored = 4 * total + (16 * adapter if rank else 12 * total)
    stored += 2 * (total + adapter) * any(stage.bf16 for stage in recipe.stages)
    return Cost(stages, (stored + peak) / GIB)


def _stage(recipe: Recipe, stage: StageConfig, sizes: Sizes, rank: int) -> StageCost:
    tokens, targets, latents = _tokens(recipe, stage)
    steps = stage.optimizer_steps(EXAMPLES - recipe.data.holdout)
    head = sizes.vocabulary * sizes.width
    weights = _weights(sizes) * tokens + head * targets
    backward = 1 if rank else 2
    passes = 1 + backward + stage.gradient_checkpointing
    products = 2 * weights * passes + 6 * _adapter(sizes, rank) * tokens
    compute = products * stage.batch_size / (PEAK * UTILISATION)
    # Latents that are fed back run one after the other, forward and backward.
    calls = stage.batch_size // _micro_batch(stage) * (1 + latents) * sizes.layers
    seconds = max(compute, calls * LAYER_SECONDS * (2 + backward))
    return StageCost(stage.name, steps, tokens, steps * seconds / 3600)


def _tokens(recipe: Recipe, stage: StageConfig) -> tuple[int, int, int]:
    """Tokens that enter the model for a typical example, those with a loss, and passes beyond the
    first.
    """
    layout = _laid_out(recipe, stage)
    feedback, trunk = recipe.prompt_format.feedback, layout.trunk
    tokens, targets = len(layout.fields_TF), int((layout.fields_TF[:, 4] >= 0).sum())
    if feedback == "chain":
        return tokens, targets, trunk.num_blocks * recipe.memory.tokens
    if feedback == "loop" and trunk.num_blocks:
        extra = recipe.memory.passes - 1
        return tokens + extra * layout.trunk_length, targets, extra
    return tokens, targets, 0


def _laid_out(recipe: Recipe, stage: StageConfig) -> Any:
    example = Example("a typical question", ("a step",) * STEPS, "1")
    return lay_out(METHODS[recipe.method], example, stage, cast(Any, _Lengths(recipe)))


class _Lengths:
    """A prompt encoder of the right lengths; the tokens themselves are all 0."""

    def __init__(self, recipe: Recipe):
        self.format, memory = recipe.prompt_format, recipe.memory
        framed = memory.framing == "once"
        self.block_ids = (0,) * (memory.tokens + 2 * (memory.framing == "each"))
        self._edge = (0,) * framed
        self.num_marker_tokens = 1

    def step_ids(self, step: str) -> tuple[int, ...]:
        return (0,) * STEP

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        return (0,) * ANSWER

    def solution_ids(self, steps: tuple[str, ...], answer: str) -> tuple[int, ...]:
        return (0,) * (STEP * len(steps) + ANSWER)  # a line break instead of a stop token

    def tokens_before_answer(self, solution: Any, answer: Any, example: Example) -> int:
        return len(solution) - len(answer)

    def prompt(self, question: str, blocks: int) -> Any:
        trunk = Trunk.build((0,) * QUESTION, self.block_ids, blocks, self._edge)
        return SimpleNamespace(trunk=trunk, prefix_ids=lambda k: self._edge if k else ())


def _linears(sizes: Sizes) -> list[tuple[int, int]]:
    """Inputs and outputs of every linear layer of one decoder layer."""
    attention = [
        (sizes.width, sizes.query),
        (sizes.width, sizes.key_value),
        (sizes.width, sizes.key_value),
        (sizes.query, sizes.width),
    ]
    up = [(sizes.width, sizes.feed_forward)] * (2 if sizes.gated else 1)
    return [*attention, *up, (sizes.feed_forward, sizes.width)]


def _weights(sizes: Sizes) -> int:
    return sizes.layers * sum(a * b for a, b in _linears(sizes))


def _adapter(sizes: Sizes, rank: int) -> int:
    return sizes.layers * rank * sum(a + b for a, b in _linears(sizes))


def _micro_batch(stage: StageConfig) -> int:
    """As written; the whole batch where it is left to be found out."""
    return stage.batch_size if stage.micro_batch_size == "auto" else stage.micro_batch_size


def _activations(recipe: Recipe, stage: StageConfig, sizes: Sizes) -> float:
    """Bytes that a micro-batch keeps for its backward pass: in every layer the inputs and outputs
    of the linear layers in two bytes, both norms' inputs in four, or, with checkpointing, the
    layer's input alone; and the logits of the targets in chunks of 2^24, held three times.
    """
    examples = _micro_batch(stage)
    tokens, targets, _ = _tokens(recipe, stage)
    kept = 2 * sum(a + b for a, b in _linears(sizes)) + 8 * sizes.width
    if stage.gradient_checkpointing:
        kept = 4 * sizes.width
    logits = min(2**24, examples * targets * sizes.vocabulary)
    return examples * tokens * sizes.layers * kept + 3 * 4 * logits
