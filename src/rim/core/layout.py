"""The method as integers: an example becomes one flat sequence with many read-outs.

A *trunk* (question, then memory blocks 1..K) is followed by the *read-outs*. Read-out k is a copy
of what would follow block k if the prompt stopped there: an optional prefix (for chat models, the
tokens that open the assistant's turn) and a target text. All read-outs share one forward pass;
`rim.core.masks` turns the integers below into the attention mask that makes the pass equal to K
separate ones.

A question 11 12, two blocks of the tokens 1 2 3, read-outs that say 21 22 and 31, and the stop
token 9, lie side by side as

                  question     block 1     block 2   read-outs
    input_ids       11  12   1   2   3   1   2   3  21  22  31
    position_ids     0   1   2   3   4   5   6   7   5   6   8
    segment_ids      0   0   0   0   0   0   0   0   1   1   2
    block_ids        0   0   1   1   1   2   2   2   1   1   2
    targets         -1  -1  -1  -1  21  -1  -1  31  22   9   9
    readout_ids     -1  -1  -1  -1   0  -1  -1   1   0   0   1
    marks           -1  -1  -1  -1  -1  -1  -1  -1  -1  -1  -1

The first target token of read-out k is predicted by the last token of block k (or of the prefix),
so the target's last token, the stop token, is predicted but never fed. A read-out without a target
is one that is about to be decoded: `rim.infer` begins with the very layout of training.

Source: arXiv 2605.30343, "one forward pass, many read-outs". The prefix is ours. Nothing here needs
torch.

Shape legend: T tokens of one flat example, F fields a token, R read-outs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rim.data.examples import DataError, Example
from rim.methods.base import Method, Readout

if TYPE_CHECKING:
    from rim.config import StageConfig
    from rim.core.tokens import PromptEncoder

TRUNK_SEGMENT = 0
PADDING = -1  # in every field; also "no target here" and "belongs to no read-out"

#: Field order of `LaidOut.fields_TF`, the names under which a batch carries them.
FIELDS = (
    "input_ids",
    "position_ids",
    "segment_ids",  # 0 trunk, r + 1 for the tokens of read-out r
    "block_ids",  # trunk: 0 question, k inside block k; read-out: the block it follows
    "targets",  # the token that this position predicts, or -1
    "readout_ids",  # the read-out that this position's target belongs to, or -1
    "marks",  # the read-out whose marked token this position predicts, or -1
)
#: Their columns there.
TOKEN, POSITION, SEGMENT, BLOCK, TARGET, READOUT, MARK = range(len(FIELDS))
#: A token that predicts nothing: the columns from `TARGET` on.
_NO_TARGET = (PADDING,) * 3


#: In a batch of separate read-outs, the example of every row.
ROW_EXAMPLES = "row_examples"


@dataclass(frozen=True)
class Trunk:
    """Question and memory blocks as tokens: what training and decoding begin with.

    ids: every token. blocks: the block of every token, 0 for the question. ends: the index of the
    last token of block k, for k = 0 (the question) .. K. block_length: tokens of one block.
    """

    ids: tuple[int, ...]
    blocks: tuple[int, ...]
    ends: tuple[int, ...]
    block_length: int

    @classmethod
    def build(
        cls,
        question_ids: Sequence[int],
        block_ids: Sequence[int],
        blocks: int,
        opening_ids: Sequence[int] = (),
    ) -> Trunk:
        """A question, then `blocks` blocks of the tokens `block_ids`.

        Args:
            question_ids: tokens before the first block, at least one.
            block_ids: the tokens of one block, e.g. `<b> <m> <m> </b>`.
            opening_ids: tokens that stand once before the first block and belong to it.

        Raises:
            ValueError: a question without tokens.
        """
        if not question_ids:
            raise ValueError("the question has no tokens")
        opening = tuple(opening_ids) if blocks else ()
        length, start = len(block_ids), len(question_ids) - 1
        numbers = [k for k in range(1, blocks + 1) for _ in range(length)]
        return cls(
            (*question_ids, *opening, *(tuple(block_ids) * blocks)),
            (*(0 for _ in question_ids), *(1 for _ in opening), *numbers),
            (start, *(start + len(opening) + length * k for k in range(1, blocks + 1))),
            length,
        )

    @property
    def num_blocks(self) -> int:
        """K."""
        return len(self.ends) - 1

    @property
    def question_ids(self) -> tuple[int, ...]:
        return self.ids[: self.ends[0] + 1]

    def columns(self, block: int) -> range:
        """Indices of a block's own tokens (an opening left out); block 0 is the question."""
        end = self.ends[block] + 1
        return range(end - self.block_length, end) if block else range(end)


@dataclass(frozen=True)
class LaidOut:
    """One example, ready to be padded into a batch.

    `fields_TF` has the columns of `FIELDS`, int32. `num_step_readouts` counts the leading read-outs
    whose target is a reasoning step: the only ones that a schedule anneals.
    """

    fields_TF: np.ndarray
    trunk_length: int
    num_readouts: int
    num_step_readouts: int


@dataclass(frozen=True)
class Layout(LaidOut):
    """An example that was laid out just now, and how it came about.

    `starts` has for every read-out the flat index of the token that predicts its first token.
    """

    trunk: Trunk
    starts: tuple[int, ...]

    def next_position(self, readout: int) -> int:
        """The position behind the token that predicts a read-out's first token."""
        return int(self.fields_TF[self.starts[readout], POSITION]) + 1

    @property
    def max_position(self) -> int:
        """The largest position id: the model's position limit must exceed it (the flat length may
        not).
        """
        return int(self.fields_TF[:, POSITION].max())


def build_layout(trunk: Trunk, readouts: Sequence[Readout]) -> Layout:
    """Lay one example out as trunk plus read-outs.

    Args:
        readouts: at most one with a target per block (not counting those in place): two that follow
            the same block without a prefix would share the position that predicts their first
            token.

    Raises:
        ValueError: no read-out, one after a block that does not exist, or a position that would
            have to predict two tokens.
    """
    if not readouts:
        raise ValueError("an example needs at least one read-out")
    rows = [
        [token, i, TRUNK_SEGMENT, block, *_NO_TARGET]
        for i, (token, block) in enumerate(zip(trunk.ids, trunk.blocks, strict=True))
    ]
    starts = []
    for r, readout in enumerate(readouts):
        if not 0 <= readout.after_block <= trunk.num_blocks:
            raise ValueError(
                f"read-out {r} follows block {readout.after_block}, but there are "
                f"{trunk.num_blocks}"
            )
        predictors = (
            _in_place(trunk, r, readout)
            if readout.in_place
            else _append_readout(rows, r, readout, trunk.ends[readout.after_block])
        )
        starts.append(predictors[0])
        _write_targets(rows, r, readout, predictors)
    steps = sum(readout.is_step for readout in readouts)
    fields_TF = np.asarray(rows, dtype=np.int32)
    return Layout(fields_TF, len(trunk.ids), len(readouts), steps, trunk, tuple(starts))


def _in_place(trunk: Trunk, r: int, readout: Readout) -> Sequence[int]:
    columns = trunk.columns(readout.after_block)
    if readout.after_block == 0 or not 0 < len(readout.target_ids) <= len(columns):
        raise ValueError(f"read-out {r} does not fit into its block")
    return columns[: len(readout.target_ids)]


def _append_readout(rows: list[list[int]], r: int, readout: Readout, anchor: int) -> list[int]:
    """Append the fed tokens of a read-out; returns the positions that predict its targets (the
    first one, where there is no target yet).
    """
    fed_ids = [*readout.prefix_ids, *readout.target_ids[:-1]]
    start, num_prefix = len(rows), len(readout.prefix_ids)
    for i, token in enumerate(fed_ids):
        rows.append([token, anchor + 1 + i, r + 1, readout.after_block, *_NO_TARGET])
    # The predictors: the anchor (or the prefix's last token), then every fed target token.
    first = anchor if num_prefix == 0 else start + num_prefix - 1
    return [first, *range(start + num_prefix, len(rows))]


def _write_targets(
    rows: list[list[int]], r: int, readout: Readout, predictors: Sequence[int]
) -> None:
    for row, target in zip(predictors, readout.target_ids, strict=bool(readout.target_ids)):
        if rows[row][TARGET] != PADDING:
            raise ValueError(
                f"two read-outs need position {row}, after block {readout.after_block}"
            )
        rows[row][TARGET], rows[row][READOUT] = target, r
    if readout.marked is not None:
        rows[predictors[readout.marked]][MARK] = r


def separate_rows(layout: LaidOut) -> list[np.ndarray]:
    """The same example as ordinary causal sequences: read-out r as a row of its own.

    A row is the question, blocks 1..k and what the read-out feeds, at positions 0, 1, 2, ..., with
    the targets (and the mark) of this read-out alone. The rows' losses are those of the layout, on
    any causal model and under no mask of ours; the question is repeated in each.

    Returns:
        One array `[tokens, FIELDS]` a read-out.
    """
    fields_TF = layout.fields_TF
    segment_T, block_T, readout_T = (fields_TF[:, i] for i in (SEGMENT, BLOCK, READOUT))
    rows = []
    for r in range(layout.num_readouts):
        start = np.flatnonzero(readout_T == r)[0]  # it predicts the first target token
        trunk_T = (segment_T == TRUNK_SEGMENT) & (block_T <= block_T[start])
        row_TF = fields_TF[trunk_T | (segment_T == r + 1)]
        other_T = row_TF[:, READOUT] != r
        row_TF[other_T, TARGET] = row_TF[other_T, READOUT] = PADDING
        row_TF[row_TF[:, MARK] != r, MARK] = PADDING
        rows.append(row_TF)
    return rows


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
    readouts = method.readouts(example, stage, encoder)
    assert all(readout.target_ids for readout in readouts), "training needs targets"
    prompt = encoder.prompt(example.question, max(r.after_block for r in readouts))
    fed = [
        r if r.in_place else replace(r, prefix_ids=prompt.prefix_ids(r.after_block))
        for r in readouts
    ]
    return build_layout(prompt.trunk, fed)
