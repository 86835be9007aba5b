"""What a method is: a declaration that everything else reads. Nobody tests a method's name.

Config asks which objectives its stages may have and whether its prompts have blocks; the layout
asks for its read-outs; models attach its extra modules; the trainer adds its extra loss; `rim
bench` times it as it says. A method file imports nothing of the library outside `rim.methods`, so
that settings are checked without torch (a method that needs torch, such as CODI, is imported when
it is used).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rim.config import MemoryConfig, StageConfig
    from rim.core.tokens import PromptEncoder
    from rim.data.examples import Example

#: From the hidden states of the embeddings and of every layer (`[B, T, D]` each) and the batch as
#: collated to a loss `[B]`, added to each example's.
ExtraLoss = Callable[[Sequence["Tensor"], Mapping[str, "Tensor"]], "Tensor"]


@dataclass(frozen=True)
class Readout:
    """What the model must say after block `after_block` (0: right after the question).

    `target_ids` end with the stop token. `prefix_ids` are fed before them and not predicted: what
    opens the assistant's turn. Methods leave them out; `rim.core.layout.lay_out` puts them in.

    is_step: the target is a reasoning step, which a schedule may anneal; steps come first.
    in_place: nothing is fed; token i of the block itself predicts `target_ids[i]` (LOTUS).
    marked: index of a target token whose predicting state an extra loss will look at (CODI).
    """

    after_block: int
    target_ids: tuple[int, ...] = ()
    prefix_ids: tuple[int, ...] = ()
    is_step: bool = False
    in_place: bool = False
    marked: int | None = None


@dataclass(frozen=True)
class BenchSetup:
    """How `rim bench` times a method.

    blocks: K of its prompts; "swept": every K that is asked for.
    memory: settings of `memory` that differ from the model's own.
    writes_steps: it writes the steps before the answer.
    baseline: times of the others are also given as ratios to this method's.
    """

    blocks: int | Literal["swept"] = 0
    memory: Mapping[str, Any] = field(default_factory=dict)
    writes_steps: bool = False
    baseline: bool = False


class Method(ABC):
    """A method; a new one is a subclass of 20 lines in a file of its own, and `register`.

    name: as recipes write it. summary: one line for tables.
    objectives: what its stages may train on (`rim.config.StageConfig.objective`).
    has_blocks: its prompts end in memory blocks, not with the question.
    removes: what its "remaining" stages remove, and so which of `removed_steps` and
        `removed_tokens` they need.
    may_loop: `memory.passes` may be more than 1.
    steps_in_place: blocks say steps at their own positions, so that nothing decodes them.
    extra_modules: modules beside the transformers model, by attribute name, made for its width:
        trained and saved with it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    objectives: ClassVar[tuple[str, ...]] = ("answer",)
    has_blocks: ClassVar[bool] = False
    removes: ClassVar[Literal["steps", "tokens"] | None] = None
    may_loop: ClassVar[bool] = False
    steps_in_place: ClassVar[bool] = False
    extra_modules: ClassVar[Mapping[str, Callable[[int], nn.Module]]] = {}
    bench: ClassVar[BenchSetup] = BenchSetup()

    @abstractmethod
    def readouts(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> Sequence[Readout]:
        """The read-outs of an example in a stage, by ascending block."""

    def feedback(self, memory: MemoryConfig) -> Literal["none", "chain", "loop"]:
        """Where memory tokens get their input from: their embedding ("none"); the last hidden state
        of the token before, one token at a time ("chain"); or their own last hidden state of the
        pass before, all at once ("loop"). Only "none" is served by a stock engine.
        """
        return "loop" if memory.passes > 1 else "none"

    def check(self, memory: MemoryConfig) -> None:  # noqa: B027 (most have nothing to refuse)
        """Refuse settings of the blocks that the method cannot have.

        Raises:
            ValueError: which setting, and what it has to be.
        """

    def blocks_needed(self, steps: int, stage: StageConfig) -> int:
        """Blocks that a stage of objective "steps" takes to say so many steps and the answer."""
        return steps + 1 if stage.alignment == "own_step" else max(1, steps)

    def extra_loss(self, stage: StageConfig) -> ExtraLoss | None:
        """A loss on hidden states, added to that of the read-outs."""
        return None
