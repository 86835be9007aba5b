"""Layouts in, padded integer tensors out. The T x T mask is built later, on the device.

Shape legend: B batch, T longest flat sequence of the batch, F fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from rim.core.layout import FIELDS, PADDING, ROW_EXAMPLES, Layout, separate_rows


def collate(
    layouts: Sequence[Layout], *, align_trunks: bool = False, separate: bool = False
) -> dict[str, Tensor]:
    """Pad on the right and split into the fields of `rim.core.layout.FIELDS`.

    Args:
        align_trunks: also pad on the left, so that all trunks end in the same column: what feeds
            hidden states back walks the latents column by column.
        separate: every read-out becomes a row of its own (`rim.core.layout.separate_rows`).

    Returns:
        Every field as an int32 tensor `[B, T]` with -1 at padding, and `num_readouts`,
        `num_step_readouts` as `[B]`. With `separate` the rows are read-outs, not examples, and
        `row_examples` says whose each is. For a two-read-out and a one-read-out example:

            input_ids     [[q q b m m /b a1 a1'], [q b m m /b a1 -1 -1]]
            segment_ids   [[0 0 0 0 0 0  1  1  ], [0 0 0 0 0  1  -1 -1]]
    """
    assert not (align_trunks and separate), "feedback has no separate rows"
    counts = {
        "num_readouts": torch.tensor([x.num_readouts for x in layouts]),
        "num_step_readouts": torch.tensor([x.num_step_readouts for x in layouts]),
    }
    rows = [torch.from_numpy(x.fields_TF) for x in layouts]
    if separate:
        rows = [torch.from_numpy(row) for x in layouts for row in separate_rows(x)]
        counts[ROW_EXAMPLES] = torch.arange(len(layouts)).repeat_interleave(counts["num_readouts"])
    if align_trunks:
        widths = [len(x.trunk.ids) for x in layouts]
        rows = [
            pad(row, (0, 0, max(widths) - width, 0), value=PADDING)
            for row, width in zip(rows, widths, strict=True)
        ]
    fields_BTF = pad_sequence(rows, batch_first=True, padding_value=PADDING)
    # Contiguous fields: FlexAttention's CPU kernels (torch 2.13) cannot capture strided ones.
    fields_FBT = fields_BTF.permute(2, 0, 1).contiguous()
    # The counts come first: Trainer weighs a validation batch by the length of its first tensor,
    # which must be the number of examples.
    return counts | dict(zip(FIELDS, fields_FBT, strict=True))
