"""The training forward pass: a collated batch through a model, to the weighted read-out loss.

Shape legend: B batch, T flat sequence length, N target positions, V vocabulary, R read-outs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rim.config import BlocksConfig
from rim.layout import PADDING
from rim.losses import ReadoutLoss, Reduction, readout_loss
from rim.masks import build_attention_mask
from rim.modeling import unwrap


def readout_logits(
    model: Any, batch: dict[str, Tensor], blocks: BlocksConfig, plain_model: Any = None
) -> Tensor:
    """Logits `[N, V]` of the target positions only, row by row.

    Args:
        plain_model: the transformers model inside `model`, where a distributed wrapper hides it.
    """
    plain = unwrap(plain_model if plain_model is not None else model)
    mask = build_attention_mask(
        plain.config._attn_implementation,
        batch["segment_ids"],
        batch["block_ids"],
        plain.dtype,
        bidirectional_blocks=blocks.attention == "bidirectional",
        readouts_see_question=blocks.readouts_see_question,
    )
    # Padding is -1 in every field; any valid id and position will do there, the mask hides them.
    # The mask is always passed: without one, transformers guesses packed sequences from repeated
    # position ids.
    output = model(
        input_ids=batch["input_ids"].clamp(min=0).long(),
        position_ids=batch["position_ids"].clamp(min=0).long(),
        attention_mask=mask,
        logits_to_keep=batch["targets"] != PADDING,
        use_cache=False,
    )
    return output.logits


def forward_readouts(
    model: Any,
    batch: dict[str, Tensor],
    blocks: BlocksConfig,
    weights_BR: Tensor,
    reduction: Reduction = "sum",
    plain_model: Any = None,
) -> ReadoutLoss:
    """One forward pass over all read-outs of a batch."""
    logits_NV = readout_logits(model, batch, blocks, plain_model)
    return readout_loss(logits_NV, batch["targets"], batch["readout_ids"], weights_BR, reduction)
