"""What a method is: how an example becomes read-outs. The rest of the library does not care which
it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rim.config import StageConfig
from rim.core.layout import Layout, Readout, build_layout
from rim.core.prompt import PromptEncoder
from rim.data.examples import DataError, Example


@dataclass(frozen=True)
class Target:
    """What block `after_block` must say (0: right after the question).

    `is_step` targets come first and may anneal; `in_place` and `marked` as in
    `rim.core.layout.Readout`.
    """

    after_block: int
    token_ids: tuple[int, ...]
    is_step: bool = False
    in_place: bool = False
    marked: int | None = None


class Method(Protocol):
    """A method is a list of targets; what its blocks take as input is `PromptFormat.feedback`."""

    def targets(
        self, example: Example, stage: StageConfig, encoder: PromptEncoder
    ) -> Sequence[Target]:
        """The targets of an example in a stage, by ascending block."""
        ...


def lay_out(method: Method, example: Example, stage: StageConfig, encoder: PromptEncoder) -> Layout:
    """One training example as integers.

    Raises:
        DataError: the method needs steps and the example has none.
    """
    if stage.objective != "answer" and not example.steps:
        raise DataError(
            f"{example.origin or repr(example.question)}: field 'steps' is empty, but stage "
            f"{stage.name!r} trains on steps; give it steps, or set data.drop_without_steps: true "
            "(`rim data validate` lists all such examples)"
        )
    targets = method.targets(example, stage, encoder)
    blocks = max(t.after_block for t in targets)
    prompt = encoder.prompt(example.question, blocks)
    readouts = [
        Readout(
            t.after_block,
            t.token_ids,
            () if t.in_place else encoder.readout_prefix_ids(prompt, t.after_block),
            t.in_place,
            t.marked,
        )
        for t in targets
    ]
    return build_layout(
        prompt.question_ids,
        encoder.block_ids,
        blocks,
        readouts,
        sum(t.is_step for t in targets),
        encoder.opening_ids,
    )
