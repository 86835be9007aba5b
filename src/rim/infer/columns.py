"""Prompts as columns: a batch of token rows that end together, and what is known of each column.

Shape legend: B prompts, T columns (question, blocks and, where it is folded in, suffix; padded on
the left).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rim.core.layout import (
    PADDING,
    TRUNK_SEGMENT,
    block_end_positions,
    build_trunk,
    trunk_block_ids,
)
from rim.core.masks import build_attention_mask
from rim.core.prompt import Prompt, PromptEncoder
from rim.core.unwrap import unwrap


@dataclass
class Row:
    """One sequence being decoded: prompt `b` of the batch, read out after block `after_block`."""

    b: int
    after_block: int
    sample: int
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class PromptBatch:
    questions: Sequence[str]
    prompts: Sequence[Prompt]
    blocks: Sequence[int]


@dataclass(frozen=True)
class Columns:
    """A batch of prompts as columns, all ending together."""

    input_BT: Tensor
    block_BT: Tensor
    real_BT: Tensor  # 1 where there is a token
    position_BT: Tensor
    mask: Any  # what the model takes: `real_BT`, or more where blocks look both ways
    trunk_lengths: list[int]
    lengths: list[int]

    @property
    def width(self) -> int:
        return self.input_BT.shape[1]


def build_columns(model: Any, encoder: PromptEncoder, batch: PromptBatch, fold: bool) -> Columns:
    device = unwrap(model).device
    ids, segments, block_of, trunk_lengths = [], [], [], []
    num_opening, block_length = len(encoder.opening_ids), len(encoder.block_ids)
    for prompt, count in zip(batch.prompts, batch.blocks, strict=True):
        trunk = build_trunk(prompt.question_ids, encoder.block_ids, count, encoder.opening_ids)
        suffix = list(encoder.readout_prefix_ids(prompt, count)) if fold else []
        ids.append(trunk + suffix)
        segments.append([TRUNK_SEGMENT] * len(trunk) + [TRUNK_SEGMENT + 1] * len(suffix))
        numbers = trunk_block_ids(len(prompt.question_ids), block_length, count, num_opening)
        block_of.append(numbers + [count] * len(suffix))
        trunk_lengths.append(len(trunk))
    lengths = [len(row) for row in ids]
    segment_BT = _left_pad(segments, max(lengths), PADDING, device)
    block_BT = _left_pad(block_of, max(lengths), PADDING, device)
    real_BT = (segment_BT != PADDING).long()
    mask: Any = real_BT
    if encoder.format.memory.attention == "bidirectional":
        plain = unwrap(model)
        mask = build_attention_mask(
            plain.config._attn_implementation,
            segment_BT,
            block_BT,
            plain.dtype,
            bidirectional_blocks=True,
        )
    return Columns(
        _left_pad(ids, max(lengths), encoder.pad_id, device),
        block_BT,
        real_BT,
        (real_BT.cumsum(1) - 1).clamp(min=0),
        mask,
        trunk_lengths,
        lengths,
    )


def end_column(
    encoder: PromptEncoder, batch: PromptBatch, columns: Columns, row: Row, fold: bool
) -> int:
    """Column of the token that predicts the row's first token (or that its suffix follows)."""
    if fold:
        return columns.width - 1
    ends = block_end_positions(
        len(batch.prompts[row.b].question_ids),
        len(encoder.block_ids),
        batch.blocks[row.b],
        len(encoder.opening_ids),
    )
    return columns.width - columns.lengths[row.b] + ends[row.after_block]


def _left_pad(lists: Iterable[list[int]], length: int, value: int, device: torch.device) -> Tensor:
    return torch.tensor([[value] * (length - len(ids)) + ids for ids in lists], device=device)
