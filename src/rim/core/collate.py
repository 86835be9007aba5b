"""Layouts in, padded integer tensors out. The T x T mask is built later, on the device.

All that depends on the batch's contents is computed here, on the CPU and in a worker if there is
one: a training step never has to wait for the device to tell it a number.

Shape legend: B examples, P rows (of one example, or of several if packed), T longest row, F fields,
N target positions, R most read-outs of an example.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rim.core.layout import FIELDS, PADDING, ROW_EXAMPLES, LaidOut, separate_rows
from rim.core.packing import pack_rows


def collate(
    layouts: Sequence[LaidOut],
    *,
    align_trunks: bool = False,
    pack: bool = False,
    separate: bool = False,
) -> dict[str, Tensor]:
    """Pad on the right and split into the fields of `rim.core.layout.FIELDS`.

    Args:
        align_trunks: also pad on the left, so that all trunks end in the same column: what feeds
            hidden states back walks the latents column by column.
        pack: several examples may share a row (`rim.core.packing`).
        separate: every read-out becomes a row of its own (`rim.core.layout.separate_rows`). At most
            one of the three.

    Returns:
        `num_readouts`, `num_step_readouts` as `[B]`; every field and `example_ids`, the example of
        each position, as an int32 tensor `[P, T]` with -1 at padding; of the target positions, in
        row-major order, `target_positions` (flat index into P x T), `target_ids` and
        `target_cells` (flat index into B x R) as `[N]`; and `target_counts`, the target tokens of
        each read-out, as `[B, R]`. With `separate` also `row_examples`, the example of each row.
        For a two-read-out and a one-read-out example, P = B = 2:

            input_ids     [[q q b m m /b a1 a1'], [q b m m /b a1 -1 -1]]
            segment_ids   [[0 0 0 0 0 0  1  1  ], [0 0 0 0 0  1  -1 -1]]
            example_ids   [[0 0 0 0 0 0  0  0  ], [1 1 1 1 1  1  -1 -1]]
    """
    assert align_trunks + pack + separate <= 1, "at most one way to lay out rows"
    pieces = [x.fields_TF for x in layouts]
    owners = list(range(len(layouts)))
    if separate:
        split = [separate_rows(x) for x in layouts]
        pieces = [row for rows in split for row in rows]
        owners = [b for b, rows in enumerate(split) for _ in rows]
    lengths = [len(piece) for piece in pieces]
    rows = pack_rows(lengths) if pack else [[i] for i in range(len(pieces))]
    starts = [0] * len(pieces)
    if align_trunks:
        widths = [x.trunk_length for x in layouts]
        starts = [max(widths) - width for width in widths]
    width = max(starts[row[0]] + sum(lengths[i] for i in row) for row in rows)
    # Fields first: FlexAttention's CPU kernels (torch 2.13) cannot capture strided ones.
    fields_FPT = np.full((len(FIELDS), len(rows), width), PADDING, np.int32)
    example_PT = np.full((len(rows), width), PADDING, np.int32)
    for p, row in enumerate(rows):
        t = starts[row[0]]
        for i in row:
            fields_FPT[:, p, t : t + lengths[i]] = pieces[i].T
            example_PT[p, t : t + lengths[i]] = owners[i]
            t += lengths[i]
    # The count of examples comes first: transformers' Trainer takes the length of the first tensor
    # for it.
    batch = {
        "num_readouts": torch.tensor([x.num_readouts for x in layouts]),
        "num_step_readouts": torch.tensor([x.num_step_readouts for x in layouts]),
    }
    batch |= dict(zip(FIELDS, torch.from_numpy(fields_FPT), strict=True))
    batch["example_ids"] = torch.from_numpy(example_PT)
    if separate:
        batch[ROW_EXAMPLES] = torch.tensor(owners)
    return batch | target_fields(batch)


def target_fields(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Where the targets of a batch are and whose, see `collate`; from the other fields."""
    targets_PT, num_readouts_B = batch["targets"], batch["num_readouts"]
    position_N = torch.nonzero(targets_PT.flatten() != PADDING)[:, 0]
    width = int(num_readouts_B.max())
    example_N = batch["example_ids"].flatten()[position_N].long()
    cell_N = example_N * width + batch["readout_ids"].flatten()[position_N]
    counts = torch.bincount(cell_N, minlength=len(num_readouts_B) * width)
    return {
        "target_positions": position_N,
        "target_ids": targets_PT.flatten()[position_N].long(),
        "target_cells": cell_N,
        "target_counts": counts.view(-1, width),
    }
