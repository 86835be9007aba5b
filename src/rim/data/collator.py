"""Layouts in, padded integer tensors out. The T x T mask is built later, on the device.

Shape legend: B batch, T longest flat sequence of the batch, F fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rim.layout import FIELDS, PADDING, Layout


def collate(layouts: Sequence[Layout]) -> dict[str, Tensor]:
    """Pad on the right and split into the fields of `rim.layout.FIELDS`.

    Returns:
        Every field as an int32 tensor `[B, T]` with -1 at padding, and `num_readouts`,
        `num_step_readouts` as `[B]`. For a two-read-out and a one-read-out example:

            input_ids     [[q q b m m /b a1 a1'], [q b m m /b a1 -1 -1]]
            segment_ids   [[0 0 0 0 0 0  1  1  ], [0 0 0 0 0  1  -1 -1]]
    """
    fields_BTF = pad_sequence(
        [x.fields_TF for x in layouts], batch_first=True, padding_value=PADDING
    )
    # Contiguous fields: FlexAttention's CPU kernels (torch 2.13) cannot capture strided ones.
    fields_FBT = fields_BTF.permute(2, 0, 1).contiguous()
    batch: dict[str, Tensor] = dict(zip(FIELDS, fields_FBT, strict=True))
    batch["num_readouts"] = torch.tensor([x.num_readouts for x in layouts])
    batch["num_step_readouts"] = torch.tensor([x.num_step_readouts for x in layouts])
    return batch
