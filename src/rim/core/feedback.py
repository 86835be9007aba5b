"""Hidden states fed back as inputs: the one loop of Coconut, CODI, LOTUS and looped RiM.

Over a KV cache, a trunk's memory tokens get their input embeddings filled:

- "chain": the last hidden state (after the final norm, through the projection where there is one)
  of the token before, one column at a time (Coconut, arXiv 2412.06769; CODI, arXiv 2502.21074);
- "loop": the token's own embedding plus its last hidden state of the pass before, all columns at
  once, `passes` passes in all, of which the caller does the last (LOTUS, arXiv 2606.31779).

Training runs the filled embeddings through one ordinary pass with all read-outs; generation goes on
from the cache. Both are the same function, differentiable throughout.

Shape legend: B batch, W trunk columns (padded on the left, so that all trunks end together), E
embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from rim.core.layers import new_cache, unwrap
from rim.core.layout import PADDING, TRUNK_SEGMENT
from rim.core.tokens import PromptEncoder

#: The attribute of a model that a method's projection is attached under, see
#: `rim.methods.base.Method.extra_modules`.
PROJECTION = "latent_projection"


@dataclass(frozen=True)
class Feedback:
    """How memory tokens (`memory_id`) are fed, `rim.config.PromptFormat.feedback`."""

    kind: Literal["chain", "loop"]
    memory_id: int
    passes: int = 1
    scale: Literal["none", "embeddings"] = "none"


def feedback_of(encoder: PromptEncoder) -> Feedback | None:
    """The feedback of a prompt format; None where memory tokens are ordinary tokens."""
    kind = encoder.format.feedback
    if kind == "none":
        return None
    memory = encoder.format.memory
    return Feedback(kind, encoder.memory_ids[1], memory.passes, memory.feedback_scale)


@dataclass(frozen=True)
class FilledEmbeddings:
    """Input embeddings of columns, and a cache that holds the first `done` of them for good."""

    embeddings_BWE: Tensor
    cache: DynamicCache
    done: int


def fill_latents(
    model: Any, ids_BW: Tensor, position_BW: Tensor, real_BW: Tensor, feedback: Feedback
) -> FilledEmbeddings:
    """Input embeddings of trunks, those of the memory tokens filled by feedback.

    Args:
        ids_BW: token ids, any valid id at padding.
        real_BW: 1 where there is a token, 0 at padding.
    """
    plain = unwrap(model)
    embeddings_BWE = plain.get_input_embeddings()(ids_BW)
    latent_BW = (ids_BW == feedback.memory_id) & (real_BW == 1)
    cache = new_cache(plain.config)
    columns = torch.nonzero(latent_BW.any(0))[:, 0].tolist()
    if not columns:
        return FilledEmbeddings(embeddings_BWE, cache, 0)

    def run(start: int, end: int, embeddings_BWE: Tensor) -> Tensor:
        """Last hidden states of columns start..end-1, which join the cache."""
        inputs = {
            "inputs_embeds": embeddings_BWE[:, start:end],
            "attention_mask": real_BW[:, :end],
            "position_ids": position_BW[:, start:end],
            "past_key_values": cache,
            "use_cache": True,
        }
        if not torch.is_grad_enabled():
            return plain.base_model(**inputs).last_hidden_state  # no vocabulary head
        # In training the whole model: a wrapper around its forward may hold mixed precision.
        return model(**inputs, output_hidden_states=True, logits_to_keep=1).hidden_states[-1]

    scaled = _scaling(plain.get_input_embeddings().weight, feedback)
    if feedback.kind == "chain":
        project = getattr(plain, PROJECTION, nn.Identity())
        done = 0
        for column in columns:
            state_BE = scaled(project(run(done, column, embeddings_BWE)[:, -1]))
            embeddings_BWE = _put(embeddings_BWE, column, state_BE, latent_BW[:, column])
            done = column
        return FilledEmbeddings(embeddings_BWE, cache, done)

    first, width = columns[0], ids_BW.shape[1]
    token_BWE, is_latent_BW1 = embeddings_BWE, latent_BW[:, first:, None]
    for number in range(1, feedback.passes):
        start = 0 if number == 1 else first
        state_BWE = scaled(run(start, width, embeddings_BWE)[:, first - start :])
        cache.crop(first - width)  # negative: how many go. The question stays, the blocks run again
        fed_BWE = torch.where(is_latent_BW1, state_BWE, torch.zeros_like(state_BWE))
        embeddings_BWE = torch.cat([token_BWE[:, :first], token_BWE[:, first:] + fed_BWE], 1)
    return FilledEmbeddings(embeddings_BWE, cache, first if feedback.passes > 1 else 0)


def _scaling(embedding_VE: Tensor, feedback: Feedback) -> Callable[[Tensor], Tensor]:
    """What a state goes through before it is fed back: nothing, or a change of its size (root mean
    square over the width) to that of the token embeddings, `[V, E]`, all tokens alike.
    """
    if feedback.scale == "none":
        return lambda state: state
    size = embedding_VE.detach().float().square().mean().sqrt()

    def scaled(state: Tensor) -> Tensor:
        own = state.float().square().mean(-1, keepdim=True).sqrt()
        return (state * (size / own.clamp(min=1e-6))).to(state.dtype)

    return scaled


def _put(embeddings_BWE: Tensor, column: int, state_BE: Tensor, where_B: Tensor) -> Tensor:
    """The embeddings with one column replaced in the rows `where_B` (out of place: gradients)."""
    new_BE = torch.where(where_B[:, None], state_BE, embeddings_BWE[:, column])
    before, after = embeddings_BWE[:, :column], embeddings_BWE[:, column + 1 :]
    return torch.cat([before, new_BE[:, None].to(before.dtype), after], 1)


def fill_batch(model: Any, batch: dict[str, Tensor], feedback: Feedback) -> FilledEmbeddings:
    """`fill_latents` for a batch (collated with `align_trunks`): embeddings of all its columns."""
    trunk_BT = batch["segment_ids"] == TRUNK_SEGMENT
    width = int(torch.nonzero(trunk_BT.any(0))[-1]) + 1
    ids_BT = batch["input_ids"].clamp(min=0).long()
    filled = fill_latents(
        model,
        ids_BT[:, :width],
        batch["position_ids"][:, :width].clamp(min=0).long(),
        (batch["segment_ids"][:, :width] != PADDING).long(),
        feedback,
    )
    rest_BTE = unwrap(model).get_input_embeddings()(ids_BT[:, width:])
    embeddings_BTE = torch.cat([filled.embeddings_BWE, rest_BTE], 1)
    return replace(filled, embeddings_BWE=embeddings_BTE)


def filling_tokens(batch: dict[str, Tensor], feedback: Feedback) -> int:
    """Tokens that enter the model only to fill latents, beside the pass that trains (a cost)."""
    trunk_BT = batch["segment_ids"] == TRUNK_SEGMENT
    latent_BT = trunk_BT & (batch["input_ids"] == feedback.memory_id)
    columns = torch.nonzero(latent_BT.any(0))[:, 0]
    if not len(columns):
        return 0
    if feedback.kind == "chain":
        return int(trunk_BT[:, : int(columns[-1])].sum())
    again = int(trunk_BT[:, int(columns[0]) :].sum()) * max(0, feedback.passes - 2)
    return int(trunk_BT.sum()) + again if feedback.passes > 1 else 0
