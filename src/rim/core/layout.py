"""The method as integers: an example becomes one flat sequence with many read-outs.

A *trunk* (question, then memory blocks 1..K) is followed by the *read-outs*. Read-out k is a copy
of what would follow block k if the prompt stopped there: an optional prefix (for chat models, the
tokens that open the assistant's turn) and a target text. All read-outs share one forward pass;
`rim.core.masks` turns the integers below into the attention mask that makes the pass equal to K separate
ones.

    position   0 1 2   3 4 5 6     7 8 9 10      7 8        11 12
    tokens     q q q   <b> m m </b> <b> m m </b>  a1 a2      a1 a2
               question  block 1     block 2     read-out 1  read-out 2

The first target token of read-out k is predicted by the last token of block k (or of the prefix),
so the target's last token, the stop token, is predicted but never fed.

Source: arXiv 2605.30343, "one forward pass, many read-outs". The prefix is ours.

Shape legend: T tokens of one flat example, F fields a token, R read-outs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TRUNK_SEGMENT = 0
PADDING = -1  # in every field; also "no target here" and "belongs to no read-out"

#: Field order of `Layout.fields_TF`, the names under which a batch carries them.
FIELDS = (
    "input_ids",
    "position_ids",
    "segment_ids",  # 0 trunk, r + 1 for the tokens of read-out r
    "block_ids",  # trunk: 0 question, k inside block k; read-out: the block it follows
    "targets",  # the token that this position predicts, or -1
    "readout_ids",  # the read-out that this position's target belongs to, or -1
    "marks",  # the read-out whose marked token this position predicts, or -1
)


@dataclass(frozen=True)
class Readout:
    """What the model must say after block `after_block` (0: right after the question).

    `prefix_ids` are fed but not predicted; `target_ids` end with the stop token.

    `in_place`: nothing is fed; token i of the block itself predicts `target_ids[i]` (LOTUS).
    `marked`: index of a target token whose predicting state a loss will look at (CODI).
    """

    after_block: int
    target_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...] = ()
    in_place: bool = False
    marked: int | None = None


@dataclass(frozen=True)
class Layout:
    """One example, ready to be padded into a batch.

    `fields_TF` is an int32 tensor with the columns of `FIELDS`. `num_step_readouts` counts the
    leading read-outs whose target is a reasoning step: the only ones that a schedule anneals.
    """

    fields_TF: Tensor
    blocks: int
    num_readouts: int
    num_step_readouts: int

    @property
    def max_position(self) -> int:
        """The largest position id: the model's position limit must exceed it (the flat length may
        not).
        """
        return int(self.fields_TF[:, FIELDS.index("position_ids")].max())

    @property
    def trunk_length(self) -> int:
        """Tokens of question and blocks."""
        return int((self.fields_TF[:, FIELDS.index("segment_ids")] == TRUNK_SEGMENT).sum())


def build_trunk(
    question_ids: Sequence[int],
    block_token_ids: Sequence[int],
    blocks: int,
    opening_ids: Sequence[int] = (),
) -> list[int]:
    """Token ids of question and blocks: the training trunk and the inference prompt alike.

    `opening_ids` stand once before the first block, where there is one.
    """
    opening = opening_ids if blocks else ()
    return [*question_ids, *opening, *(list(block_token_ids) * blocks)]


def trunk_block_ids(
    num_question_tokens: int, block_length: int, blocks: int, num_opening: int = 0
) -> list[int]:
    """The block of every trunk token, 0 for the question; the opening belongs to block 1."""
    opening = num_opening if blocks else 0
    numbers = [k for k in range(1, blocks + 1) for _ in range(block_length)]
    return [0] * num_question_tokens + [1] * opening + numbers


def block_end_positions(
    num_question_tokens: int, block_length: int, blocks: int, num_opening: int = 0
) -> list[int]:
    """Trunk index of the last token of block k, for k = 0 (question) .. blocks."""
    start = num_question_tokens - 1
    return [start, *(start + num_opening + block_length * k for k in range(1, blocks + 1))]


def build_layout(
    question_ids: Sequence[int],
    block_token_ids: Sequence[int],
    blocks: int,
    readouts: Sequence[Readout],
    num_step_readouts: int = 0,
    opening_ids: Sequence[int] = (),
) -> Layout:
    """Lay one example out as trunk plus read-outs.

    Args:
        question_ids: tokens before the first block, at least one.
        block_token_ids: the tokens of one block, e.g. `<b> <m> <m> </b>`.
        blocks: K of this example.
        readouts: at most one per block (not counting those in place): two that follow the same
            block without a prefix would share the position that predicts their first token.
        opening_ids: tokens that stand once between question and blocks.

    Raises:
        ValueError: an empty question or target, a read-out after a block that does not exist, or a
            position that would have to predict two tokens.
    """
    if not question_ids:
        raise ValueError("the question has no tokens")
    if not readouts:
        raise ValueError("an example needs at least one read-out")
    trunk_ids = build_trunk(question_ids, block_token_ids, blocks, opening_ids)
    sizes = (len(question_ids), len(block_token_ids), blocks, len(opening_ids))
    ends = block_end_positions(*sizes)
    no_target = [PADDING] * (len(FIELDS) - 4)
    rows = [
        [token, i, TRUNK_SEGMENT, block, *no_target]
        for i, (token, block) in enumerate(zip(trunk_ids, trunk_block_ids(*sizes), strict=True))
    ]
    for r, readout in enumerate(readouts):
        if not 0 <= readout.after_block <= blocks:
            raise ValueError(
                f"read-out {r} follows block {readout.after_block}, but there are {blocks}"
            )
        if not readout.target_ids:
            raise ValueError(f"read-out {r} has an empty target")
        if readout.in_place:
            start = ends[readout.after_block] + 1 - len(block_token_ids)
            if readout.after_block == 0 or len(readout.target_ids) > len(block_token_ids):
                raise ValueError(f"read-out {r} does not fit into its block")
            predictors = list(range(start, start + len(readout.target_ids)))
        else:
            predictors = _append_readout(rows, r, readout, ends[readout.after_block])
        _write_targets(rows, r, readout, predictors)
    return Layout(torch.tensor(rows, dtype=torch.int32), blocks, len(readouts), num_step_readouts)


def _append_readout(rows: list[list[int]], r: int, readout: Readout, anchor: int) -> list[int]:
    """Append the fed tokens of a read-out; returns the positions that predict its targets."""
    fed_ids = [*readout.prefix_ids, *readout.target_ids[:-1]]
    start, num_prefix = len(rows), len(readout.prefix_ids)
    no_target = [PADDING] * (len(FIELDS) - 4)
    for i, token in enumerate(fed_ids):
        rows.append([token, anchor + 1 + i, r + 1, readout.after_block, *no_target])
    # The predictors: the anchor (or the prefix's last token), then every fed target token.
    first = anchor if num_prefix == 0 else start + num_prefix - 1
    return [first, *range(start + num_prefix, len(rows))]


def _write_targets(
    rows: list[list[int]], r: int, readout: Readout, predictors: Sequence[int]
) -> None:
    target_column, readout_column = FIELDS.index("targets"), FIELDS.index("readout_ids")
    for row, target in zip(predictors, readout.target_ids, strict=True):
        if rows[row][target_column] != PADDING:
            raise ValueError(
                f"two read-outs need position {row}, after block {readout.after_block}"
            )
        rows[row][target_column] = target
        rows[row][readout_column] = r
    if readout.marked is not None:
        rows[predictors[readout.marked]][FIELDS.index("marks")] = r
