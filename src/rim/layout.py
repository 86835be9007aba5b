"""The method as integers: an example becomes one flat sequence with many read-outs.

A *trunk* (question, then memory blocks 1..K) is followed by the *read-outs*. Read-out k is a copy
of what would follow block k if the prompt stopped there: an optional prefix (for chat models, the
tokens that open the assistant's turn) and a target text. All read-outs share one forward pass;
`rim.masks` turns the integers below into the attention mask that makes the pass equal to K separate
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
)


@dataclass(frozen=True)
class Readout:
    """What the model must say after block `after_block` (0: right after the question).

    `prefix_ids` are fed but not predicted; `target_ids` end with the stop token.
    """

    after_block: int
    target_ids: tuple[int, ...]
    prefix_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layout:
    """One example, ready to be padded into a batch.

    `fields_TF` is an int32 tensor with the columns of `FIELDS`. `num_step_readouts` counts the
    leading read-outs whose target is a reasoning step: the only ones that a schedule anneals.
    """

    fields_TF: Tensor
    num_blocks: int
    num_readouts: int
    num_step_readouts: int

    @property
    def max_position(self) -> int:
        """The largest position id: the model's position limit must exceed it (the flat length may
        not).
        """
        return int(self.fields_TF[:, FIELDS.index("position_ids")].max())


def build_trunk(
    question_ids: Sequence[int], block_token_ids: Sequence[int], num_blocks: int
) -> list[int]:
    """Token ids of question and blocks: the training trunk and the inference prompt alike."""
    return [*question_ids, *(list(block_token_ids) * num_blocks)]


def block_end_positions(num_question_tokens: int, block_length: int, num_blocks: int) -> list[int]:
    """Trunk index of the token that predicts read-out k, for k = 0 (question) .. num_blocks."""
    return [num_question_tokens - 1 + block_length * k for k in range(num_blocks + 1)]


def build_layout(
    question_ids: Sequence[int],
    block_token_ids: Sequence[int],
    num_blocks: int,
    readouts: Sequence[Readout],
    num_step_readouts: int = 0,
) -> Layout:
    """Lay one example out as trunk plus read-outs.

    Args:
        question_ids: tokens before the first block, at least one.
        block_token_ids: the tokens of one block, e.g. `<b> <m> <m> </b>`.
        num_blocks: K of this example.
        readouts: at most one per block: two that follow the same block without a prefix would share
            the position that predicts their first token.

    Raises:
        ValueError: an empty question or target, a read-out after a block that does not exist, or
            two
            read-outs after one block.
    """
    if not question_ids:
        raise ValueError("the question has no tokens")
    if not readouts:
        raise ValueError("an example needs at least one read-out")
    trunk_ids = build_trunk(question_ids, block_token_ids, num_blocks)
    ends = block_end_positions(len(question_ids), len(block_token_ids), num_blocks)
    rows = [
        [
            token,
            i,
            TRUNK_SEGMENT,
            _block_of(i, len(question_ids), len(block_token_ids)),
            PADDING,
            PADDING,
        ]
        for i, token in enumerate(trunk_ids)
    ]
    seen: set[int] = set()
    for r, readout in enumerate(readouts):
        if not 0 <= readout.after_block <= num_blocks:
            raise ValueError(
                f"read-out {r} follows block {readout.after_block}, but there are {num_blocks}"
            )
        if readout.after_block in seen:
            raise ValueError(f"two read-outs follow block {readout.after_block}")
        if not readout.target_ids:
            raise ValueError(f"read-out {r} has an empty target")
        seen.add(readout.after_block)
        _append_readout(rows, r, readout, ends[readout.after_block])
    return Layout(
        torch.tensor(rows, dtype=torch.int32), num_blocks, len(readouts), num_step_readouts
    )


def _block_of(index: int, num_question_tokens: int, block_length: int) -> int:
    offset = index - num_question_tokens
    return 0 if offset < 0 else offset // block_length + 1


def _append_readout(rows: list[list[int]], r: int, readout: Readout, anchor: int) -> None:
    """Append the fed tokens of a read-out and write its targets, the first one at the anchor."""
    target_column, readout_column = FIELDS.index("targets"), FIELDS.index("readout_ids")
    fed_ids = [*readout.prefix_ids, *readout.target_ids[:-1]]
    start = len(rows)
    for i, token in enumerate(fed_ids):
        rows.append([token, anchor + 1 + i, r + 1, readout.after_block, PADDING, PADDING])
    # The predictors: the anchor (or the prefix's last token), then every fed target token.
    num_prefix = len(readout.prefix_ids)
    first = anchor if num_prefix == 0 else start + num_prefix - 1
    predictors = [first, *range(start + num_prefix, len(rows))]
    for row, target in zip(predictors, readout.target_ids, strict=True):
        rows[row][target_column] = target
        rows[row][readout_column] = r
