"""Layouts in, padded integer tensors out. The T x T mask is built later, on the device.

Shape legend: B batch, T longest flat sequence of the batch, F fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from rim.core.layout import FIELDS, PADDING, Layout


def collate(layouts: Sequence[Layout], *, align_trunks: bool = False) -> dict[str, Tensor]:
    """Pad on the right and split into the fields of `rim.core.layout.FIELDS`.

    Args:
        align_trunks: also pad on the left, so that all trunks end in the same column: what feeds
            hidden states back walks the latents column by column.

    Returns:
        Every field as an int32 tensor `[B, T]` with -1 at padding, and `num_readouts`,
        `num_step_readouts` as `[B]`. For a two-read-out and a one-read-out example:

            input_ids     [[q q b m m /b a1 a1'], [q b m m /b a1 -1 -1]]
            segment_ids   [[0 0 0 0 0 0  1  1  ], [0 0 0 0 0  1  -1 -1]]
    """
    rows = [torch.from_numpy(x.fields_TF) for x in layouts]
    if align_trunks:
        widths = [len(x.trunk.ids) for x in layouts]
        rows = [
            pad(row, (0, 0, max(widths) - width, 0), value=PADDING)
            for row, width in zip(rows, widths, strict=True)
        ]
    fields_BTF = pad_sequence(rows, batch_first=True, padding_value=PADDING)
    # Contiguous fields: FlexAttention's CPU kernels (torch 2.13) cannot capture strided ones.
    fields_FBT = fields_BTF.permute(2, 0, 1).contiguous()
    batch: dict[str, Tensor] = dict(zip(FIELDS, fields_FBT, strict=True))
    batch["num_readouts"] = torch.tensor([x.num_readouts for x in layouts])
    batch["num_step_readouts"] = torch.tensor([x.num_step_readouts for x in layouts])
    return batch
