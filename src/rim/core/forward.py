"""The training forward pass: a collated batch through a model, to the weighted read-out loss.

Shape legend: B batch, T flat sequence length, N target positions, V vocabulary, R read-outs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from rim.config import MemoryConfig
from rim.core.feedback import Feedback, batch_embeddings
from rim.core.layout import PADDING
from rim.core.losses import ReadoutLoss, Reduction, distillation_loss, readout_loss
from rim.core.masks import build_attention_mask
from rim.core.unwrap import unwrap


def readout_logits(
    model: Any,
    batch: dict[str, Tensor],
    memory: MemoryConfig,
    plain_model: Any = None,
    feedback: Feedback | None = None,
) -> Tensor:
    """Logits `[N, V]` of the target positions only, row by row.

    Args:
        plain_model: the transformers model inside `model`, where a distributed wrapper hides it.
        feedback: how memory tokens get their input, if not as ordinary tokens; then the batch must
            have aligned trunks.
    """
    return _forward(model, batch, memory, plain_model, feedback).logits


def _forward(
    model: Any,
    batch: dict[str, Tensor],
    memory: MemoryConfig,
    plain_model: Any = None,
    feedback: Feedback | None = None,
    hidden_states: bool = False,
) -> Any:
    plain = unwrap(plain_model if plain_model is not None else model)
    mask = build_attention_mask(
        plain.config._attn_implementation,
        batch["segment_ids"],
        batch["block_ids"],
        plain.dtype,
        bidirectional_blocks=memory.attention == "bidirectional",
        readouts_see_question=memory.readouts_see_question,
    )
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
        attention_mask=mask,
        logits_to_keep=batch["targets"] != PADDING,
        use_cache=False,
        output_hidden_states=hidden_states,
    )


def forward_readouts(
    model: Any,
    batch: dict[str, Tensor],
    memory: MemoryConfig,
    weights_BR: Tensor,
    reduction: Reduction = "sum",
    plain_model: Any = None,
    feedback: Feedback | None = None,
    distillation_weight: float = 0.0,
) -> ReadoutLoss:
    """One pass over all read-outs of a batch (after those that feed hidden states back, if any).

    Args:
        distillation_weight: times CODI's distillation loss, added to each example's.
    """
    distil = distillation_weight > 0
    output = _forward(model, batch, memory, plain_model, feedback, hidden_states=distil)
    loss = readout_loss(
        output.logits, batch["targets"], batch["readout_ids"], weights_BR, reduction
    )
    if not distil:
        return loss
    extra_B = distillation_weight * distillation_loss(output.hidden_states, batch["marks"])
    return dataclasses.replace(loss, per_example_B=loss.per_example_B + extra_B)
