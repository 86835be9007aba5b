"""Who may attend to whom: one rule, in the three forms that attention implementations want.

Shape legend: B rows, T flat sequence length (or cached columns), Q queries, 1 heads (broadcast), E
examples, R read-outs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import eager_mask, sdpa_mask

from rim.core.layers import Window, layer_windows
from rim.core.layout import TRUNK_SEGMENT

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def get_readout_mask_mod(
    segment_ids_BT: Tensor,
    block_ids_BT: Tensor,
    *,
    example_ids_BT: Tensor | None = None,
    bidirectional_blocks: bool = False,
    blind_BT: Tensor | None = None,
    window: Window | None = None,
    position_ids_BT: Tensor | None = None,
) -> MaskMod:
    """The attention rule as a closure over (batch, head, query, key) indices, True = attend.

    A query sees a key that is not later than itself, whose block is not later than its own, and
    that is either trunk or part of the query's own read-out. Padding is a segment of its own, so it
    sees padding only: no row is ever empty, which would turn into NaN.

    Args:
        example_ids_BT: the example of every token, where a row may hold several (`collate`): a
            query sees its own example only.
        bidirectional_blocks: tokens of one block see each other; no stock engine serves that.
        blind_BT: queries that do not see the question (`blind_tokens`).
        window: what the layer sees at most. It is measured in `position_ids_BT`, not in columns: a
            read-out's columns lie far behind the block that it follows.
    """
    assert window is None or position_ids_BT is not None, "a window is measured in positions"

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        q_segment, kv_segment = segment_ids_BT[b, q], segment_ids_BT[b, kv]
        q_block, kv_block = block_ids_BT[b, q], block_ids_BT[b, kv]
        shared = (kv_segment == TRUNK_SEGMENT) & (q_segment >= TRUNK_SEGMENT)
        visible = (kv <= q) & (kv_block <= q_block) & (shared | (kv_segment == q_segment))
        if bidirectional_blocks:
            in_trunk = (q_segment == TRUNK_SEGMENT) & (kv_segment == TRUNK_SEGMENT)
            visible = visible | (in_trunk & (q_block == kv_block) & (q_block >= 1))
        if blind_BT is not None:
            visible = visible & ~(blind_BT[b, q] & (kv_block == 0))
        if window is not None and position_ids_BT is not None:
            visible = visible & _within(window, position_ids_BT[b, q], position_ids_BT[b, kv])
        if example_ids_BT is not None:
            visible = visible & (example_ids_BT[b, q] == example_ids_BT[b, kv])
        return visible

    return mask_mod


def _within(window: Window, q_position: Tensor, kv_position: Tensor) -> Tensor:
    """Whether a layer's window reaches from the query's position to the key's."""
    if window.kind == "chunked":
        return q_position // window.size == kv_position // window.size
    return q_position - kv_position < window.size


def blind_tokens(
    segment_ids_BT: Tensor,
    block_ids_BT: Tensor,
    example_ids_BT: Tensor | None = None,
    blind_ER: Tensor | None = None,
) -> Tensor:
    """The tokens `[B, T]` of blind read-outs: those of `blind_ER`, by example and read-out, or all.

    One after block 0 has nothing but the question, so it keeps it. And a block's last token is
    trunk: where nothing opens the read-out, the token that predicts its first target token sees the
    question in any case.
    """
    blind_BT = (segment_ids_BT > TRUNK_SEGMENT) & (block_ids_BT >= 1)
    if blind_ER is None:
        return blind_BT
    assert example_ids_BT is not None, "whose read-outs they are"
    readout_BT = (segment_ids_BT - 1).clamp(min=0).long()
    return blind_BT & blind_ER[example_ids_BT.clamp(min=0).long(), readout_BT]


#: What makes the rule a tensor `[B, 1, Q, T]`: bool for sdpa; for eager attention, which ADDS it, 0
#: where attention is allowed and the dtype's minimum elsewhere.
DENSE = {"sdpa": sdpa_mask, "eager": eager_mask}


def build_attention_mask(
    implementation: str, mask_mod: MaskMod, segment_ids_BT: Tensor, dtype: torch.dtype, new: int = 0
):
    """The mask in the form that `implementation` ("sdpa", "eager", "flex_attention") takes, on the
    ids' device.

    Args:
        new: only the last `new` tokens are queries, the others are cached; 0: all are queries.

    Raises:
        ValueError: an implementation that cannot express the rule (the flash-attention kernels).
    """
    batch_size, keys = segment_ids_BT.shape
    queries = range(keys - new if new else 0, keys)
    if implementation == "flex_attention":
        # Imported late: the module compiles kernels and is slow to load where it is not used.
        from torch.nn.attention.flex_attention import create_block_mask

        def shifted(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
            return mask_mod(b, h, q + queries.start, kv)

        rule, device = shifted if queries.start else mask_mod, segment_ids_BT.device
        return create_block_mask(rule, batch_size, None, len(queries), keys, device=device)
    if implementation not in DENSE:
        raise ValueError(
            f"attention implementation {implementation!r} cannot express the read-out mask; "
            "use 'sdpa', 'eager' or 'flex_attention'"
        )
    return DENSE[implementation](
        batch_size,
        len(queries),
        keys,
        queries.start,
        mask_function=mask_mod,
        allow_is_causal_skip=False,
        dtype=dtype,
        device=segment_ids_BT.device,
    )


def layer_masks(
    config: Any,
    rule: Callable[[Window | None], MaskMod],
    segment_ids_BT: Tensor,
    dtype: torch.dtype,
    new: int = 0,
) -> Any:
    """The masks of a model: one for all layers, or where layers differ in what they see, one for
    each kind by name, as transformers' models with `layer_types` take them.

    Args:
        rule: the attention rule under a window. new: as in `build_attention_mask`.
    """
    windows = layer_windows(config)
    masks = {
        window: build_attention_mask(
            config._attn_implementation, rule(window), segment_ids_BT, dtype, new
        )
        for window in dict.fromkeys(windows.values())
    }
    if len(masks) == 1:
        return next(iter(masks.values()))
    return {kind: masks[window] for kind, window in windows.items()}
