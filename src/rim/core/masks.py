"""Who may attend to whom: one rule, in the three forms that attention implementations want.

Shape legend: B batch, T flat sequence length, 1 heads (broadcast).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rim.core.layout import TRUNK_SEGMENT

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def get_readout_mask_mod(
    segment_ids_BT: Tensor,
    block_ids_BT: Tensor,
    *,
    bidirectional_blocks: bool = False,
    readouts_see_question: bool = True,
) -> MaskMod:
    """The attention rule as a closure over (batch, head, query, key) indices, True = attend.

    A query sees a key that is not later than itself, whose block is not later than its own, and
    that is either trunk or part of the query's own read-out. Padding is a segment of its own, so it
    sees padding only: no row is ever empty, which would turn into NaN.

    Both switches are variants that the paper mentions; neither can be served by a stock causal
    engine.
    """

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        q_segment, kv_segment = segment_ids_BT[b, q], segment_ids_BT[b, kv]
        q_block, kv_block = block_ids_BT[b, q], block_ids_BT[b, kv]
        shared = (kv_segment == TRUNK_SEGMENT) & (q_segment >= TRUNK_SEGMENT)
        visible = (kv <= q) & (kv_block <= q_block) & (shared | (kv_segment == q_segment))
        if bidirectional_blocks:
            in_trunk = (q_segment == TRUNK_SEGMENT) & (kv_segment == TRUNK_SEGMENT)
            visible = visible | (in_trunk & (q_block == kv_block) & (q_block >= 1))
        if not readouts_see_question:
            # A read-out after block 0 has nothing but the question, so the switch leaves it alone.
            visible = visible & ~((q_segment > TRUNK_SEGMENT) & (q_block >= 1) & (kv_block == 0))
        return visible

    return mask_mod


def dense_mask(
    mask_mod: MaskMod, batch_size: int, length: int, device: torch.device | str
) -> Tensor:
    """The rule as a bool tensor `[B, 1, T, T]` (what sdpa takes)."""
    b = torch.arange(batch_size, device=device)[:, None, None]
    q = torch.arange(length, device=device)[None, :, None]
    kv = torch.arange(length, device=device)[None, None, :]
    return mask_mod(b, torch.zeros_like(b), q, kv)[:, None]


def additive_mask(mask_B1TT: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where attention is allowed, the dtype's minimum elsewhere (what eager attention ADDS)."""
    zeros = torch.zeros(mask_B1TT.shape, dtype=dtype, device=mask_B1TT.device)
    return zeros.masked_fill(~mask_B1TT, torch.finfo(dtype).min)


def build_attention_mask(
    implementation: str,
    segment_ids_BT: Tensor,
    block_ids_BT: Tensor,
    dtype: torch.dtype,
    *,
    bidirectional_blocks: bool = False,
    readouts_see_question: bool = True,
):
    """The mask in the form that `implementation` ("sdpa", "eager", "flex_attention") takes, on the
    ids' device.

    Raises:
        ValueError: an implementation that cannot express the rule (the flash-attention kernels).
    """
    mask_mod = get_readout_mask_mod(
        segment_ids_BT,
        block_ids_BT,
        bidirectional_blocks=bidirectional_blocks,
        readouts_see_question=readouts_see_question,
    )
    batch_size, length = segment_ids_BT.shape
    if implementation == "flex_attention":
        # Imported late: the module compiles kernels and is slow to load where it is not used.
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(
            mask_mod, batch_size, None, length, length, device=segment_ids_BT.device
        )
    mask_B1TT = dense_mask(mask_mod, batch_size, length, segment_ids_BT.device)
    if implementation == "sdpa":
        return mask_B1TT
    if implementation == "eager":
        return additive_mask(mask_B1TT, dtype)
    raise ValueError(
        f"attention implementation {implementation!r} cannot express the read-out mask; "
        "use 'sdpa', 'eager' or 'flex_attention'"
    )
