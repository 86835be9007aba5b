"""The training forward pass: a collated batch through a model, to the weighted read-out loss.

Shape legend: B examples, P rows (several examples each if packed), T flat sequence length, N target
positions, V vocabulary, R read-outs, D width.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn

from rim.config import MemoryConfig
from rim.core.feedback import Feedback, fill_batch
from rim.core.layers import Window, evaluating, unwrap
from rim.core.layout import PADDING, ROW_EXAMPLES
from rim.core.losses import (
    ReadoutLoss,
    Reduction,
    TokenLoss,
    chunked_token_loss,
    readout_loss,
    token_loss,
)
from rim.core.masks import MaskMod, blind_tokens, get_readout_mask_mod, layer_masks
from rim.methods import ExtraLoss

#: Logits (target positions times vocabulary) beyond which training makes them in chunks: 64 MB in
#: float32, and the softmax and the gradient as much again each.
MOST_LOGITS = 2**24


def logits_chunk(plain: Any, num_targets: int) -> int | None:
    """Target positions that may have logits at a time, if there are more; None: all at once."""
    vocabulary = plain.config.get_text_config().vocab_size
    if num_targets * vocabulary <= MOST_LOGITS:
        return None
    return max(1, MOST_LOGITS // vocabulary)


@contextlib.contextmanager
def before_head(plain: Any, change: Callable[[nn.Module, Tensor], Tensor]) -> Generator[None]:
    """While this lasts, the vocabulary head of a transformers model gets `change(head, states)`
    instead of its input, inside the model's own forward pass: under its autocast and whatever
    wraps it.
    """
    head = plain.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, args: (change(module, args[0]),))
    try:
        yield
    finally:
        hook.remove()


def head_makes_logits(plain: Any) -> bool:
    """Whether logits are what the head makes of its input, nothing scaled or capped behind it.

    Tried on one state, large enough for a cap to show: families differ, and name it differently.
    """
    seen: list[Tensor] = []

    def large(head: nn.Module, states: Tensor) -> Tensor:
        states = torch.linspace(-1e3, 1e3, states.shape[-1]).to(states).expand_as(states)
        seen.append(head.forward(states))
        return states

    ids = torch.zeros(1, 1, dtype=torch.long, device=plain.device)
    # Dropout would draw, which a run that is resumed here has not done before.
    with torch.no_grad(), evaluating(plain), before_head(plain, large):
        logits = plain(input_ids=ids, use_cache=False).logits
    return torch.equal(logits.float(), seen[0].float())


def forward_batch(
    model: Any,
    batch: dict[str, Tensor],
    memory: MemoryConfig,
    *,
    plain_model: Any = None,
    feedback: Feedback | None = None,
    blind_BR: Tensor | None = None,
    hidden_states: bool = False,
    at_head: Callable[[nn.Module, Tensor], Tensor] = lambda head, states_ND: states_ND,
) -> Any:
    """The model's output, with logits `[N, V]` of the target positions only, row by row.

    Args:
        plain_model: the transformers model inside `model`, where a distributed wrapper hides it.
        feedback: how memory tokens get their input, if not as ordinary tokens; then the batch must
            have aligned trunks.
        blind_BR: read-outs that do not see the question (`rim.core.blind_readouts`); by default
            none, or all if `memory.readouts_see_question` is False.
        hidden_states: also those of the embeddings and of every layer, `[P, T, D]`.
        at_head: called with the head and the states of the target positions; the head gets what it
            returns.
    """
    plain = unwrap(plain_model if plain_model is not None else model)
    inputs = (
        {"input_ids": batch["input_ids"].clamp(min=0).long()}
        if feedback is None
        else {"inputs_embeds": fill_batch(model, batch, feedback).embeddings_BWE}
    )

    def targets_only(head: nn.Module, states: Tensor) -> Tensor:
        # By index: `logits_to_keep` takes a mask, whose size the device would have to tell first.
        return at_head(head, states.flatten(0, 1).index_select(0, batch["target_positions"]))

    # Padding is -1 in every field; any valid id and position will do there, the mask hides them.
    # The mask is always passed: without one, transformers guesses packed sequences from repeated
    # position ids.
    with before_head(plain, targets_only):
        return model(
            **inputs,
            position_ids=batch["position_ids"].clamp(min=0).long(),
            attention_mask=_attention_mask(plain, batch, memory, blind_BR),
            use_cache=False,
            output_hidden_states=hidden_states,
        )


def _attention_mask(
    plain: Any, batch: dict[str, Tensor], memory: MemoryConfig, blind_BR: Tensor | None
) -> Any:
    """Our rule, layer kind by layer kind; for separate rows, the 2-D mask of any causal model."""
    segment_PT, block_PT, example_PT = (
        batch[name] for name in ("segment_ids", "block_ids", "example_ids")
    )
    if ROW_EXAMPLES in batch:
        return (segment_PT != PADDING).long()
    blind_PT = None
    if blind_BR is not None or not memory.readouts_see_question:
        blind_PT = blind_tokens(segment_PT, block_PT, example_PT, blind_BR)

    def rule(window: Window | None) -> MaskMod:
        return get_readout_mask_mod(
            segment_PT,
            block_PT,
            example_ids_BT=example_PT,
            bidirectional_blocks=memory.attention == "bidirectional",
            blind_BT=blind_PT,
            window=window,
            position_ids_BT=batch["position_ids"],
        )

    return layer_masks(plain.config, rule, segment_PT, plain.dtype)


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
    chunk: int | None = None,
) -> ReadoutLoss:
    """One pass over all read-outs of a batch (after those that feed hidden states back, if any).

    Args:
        blind_BR: as in `forward_batch`.
        extra_loss: a method's own loss on the hidden states, added to each example's.
        chunk: at most so many target positions have logits at a time (`chunked_token_loss`); the
            model must pass `head_makes_logits`.
    """
    target_ids_N = batch["target_ids"]
    in_chunks: list[TokenLoss] = []

    def at_head(head: nn.Module, states_ND: Tensor) -> Tensor:
        if chunk is None:
            return states_ND
        in_chunks.append(chunked_token_loss(head.forward, states_ND, target_ids_N, chunk))
        return states_ND[:1]  # the model wants to make some logits

    output = forward_batch(
        model,
        batch,
        memory,
        plain_model=plain_model,
        feedback=feedback,
        blind_BR=blind_BR,
        hidden_states=extra_loss is not None,
        at_head=at_head,
    )
    tokens = in_chunks[0] if in_chunks else token_loss(output.logits, target_ids_N)
    loss = readout_loss(
        tokens, batch["target_cells"], batch["target_counts"], weights_BR, reduction
    )
    if extra_loss is None:
        return loss
    extra_B = extra_loss(output.hidden_states, batch)
    return dataclasses.replace(loss, per_example_B=loss.per_example_B + extra_B)
