"""The training forward pass: a collated batch through a model, to the weighted read-out loss.

Shape legend: B batch, T flat sequence length, N target positions, V vocabulary, R read-outs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from rim.config import MemoryConfig
from rim.core.feedback import Feedback, batch_embeddings
from rim.core.layers import Window
from rim.core.layout import PADDING, ROW_EXAMPLES
from rim.core.losses import ReadoutLoss, Reduction, readout_loss
from rim.core.masks import MaskMod, blind_tokens, get_readout_mask_mod, layer_masks
from rim.core.unwrap import unwrap
from rim.methods import ExtraLoss


def forward_batch(
    model: Any,
    batch: dict[str, Tensor],
    memory: MemoryConfig,
    *,
    plain_model: Any = None,
    feedback: Feedback | None = None,
    blind_BR: Tensor | None = None,
    hidden_states: bool = False,
) -> Any:
    """The model's output, with logits `[N, V]` of the target positions only, row by row.

    Args:
        plain_model: the transformers model inside `model`, where a distributed wrapper hides it.
        feedback: how memory tokens get their input, if not as ordinary tokens; then the batch must
            have aligned trunks.
        blind_BR: read-outs that do not see the question (`rim.core.blind`); by default none, or
            all if `memory.readouts_see_question` is False.
        hidden_states: also those of the embeddings and of every layer, `[B, T, D]`.
    """
    plain = unwrap(plain_model if plain_model is not None else model)
    inputs = (
        {"input_ids": batch["input_ids"].clamp(min=0).long()}
        if feedback is None
        else {"inputs_embeds": batch_embeddings(model, batch, feedback)}
    )
    # Padding is -1 in every field; any valid id and position will do there, the mask hides them.
    # The mask is always passed: without one, transformers guesses packed sequences from repeated
    # position ids.
    return model(
        **inputs,
        position_ids=batch["position_ids"].clamp(min=0).long(),
        attention_mask=_attention_mask(plain, batch, memory, blind_BR),
        logits_to_keep=batch["targets"] != PADDING,
        use_cache=False,
        output_hidden_states=hidden_states,
    )


def _attention_mask(
    plain: Any, batch: dict[str, Tensor], memory: MemoryConfig, blind_BR: Tensor | None
) -> Any:
    """Our rule, layer kind by layer kind; for separate rows, the 2-D mask of any causal model."""
    segment_BT, block_BT = batch["segment_ids"], batch["block_ids"]
    if ROW_EXAMPLES in batch:
        return (segment_BT != PADDING).long()
    blind_BT = None
    if blind_BR is not None or not memory.readouts_see_question:
        blind_BT = blind_tokens(segment_BT, block_BT, blind_BR)

    def rule(window: Window | None) -> MaskMod:
        return get_readout_mask_mod(
            segment_BT,
            block_BT,
            bidirectional_blocks=memory.attention == "bidirectional",
            blind_BT=blind_BT,
            window=window,
            position_ids_BT=batch["position_ids"],
        )

    return layer_masks(plain.config, rule, segment_BT, plain.dtype)


def forward_readouts(
    model: Any,
    batch: dict[str, Tensor],
    memory: MemoryConfig,
    weights_BR: Tensor,
    reduction: Reduction = "sum",
    *,
    plain_model: Any = None,
    feedback: Feedback | None = None,
    blind_BR: Tensor | None = None,
    extra_loss: ExtraLoss | None = None,
) -> ReadoutLoss:
    """One pass over all read-outs of a batch (after those that feed hidden states back, if any).

    Args:
        blind_BR: as in `forward_batch`.
        extra_loss: a method's own loss on the hidden states, added to each example's.
    """
    output = forward_batch(
        model,
        batch,
        memory,
        plain_model=plain_model,
        feedback=feedback,
        blind_BR=blind_BR,
        hidden_states=extra_loss is not None,
    )
    loss = readout_loss(
        output.logits,
        batch["targets"],
        batch["readout_ids"],
        weights_BR,
        reduction,
        row_examples=batch.get(ROW_EXAMPLES),
    )
    if extra_loss is None:
        return loss
    extra_B = extra_loss(output.hidden_states, batch)
    return dataclasses.replace(loss, per_example_B=loss.per_example_B + extra_B)
