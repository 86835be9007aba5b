"""From prompts to a cache from which answers are decoded after any block.

A batch of prompts is prefilled once with all its blocks; every wanted read-out becomes a row with
its own copy of the cache and a mask that hides the blocks after its own.

Shape legend: B prompts, T columns (question, blocks and, where it is folded in, suffix; padded on
the left), N rows (prompt x block x sample), S tokens fed to every row, V vocabulary, E width.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from rim.core.feedback import Filled, feedback_of, fill_latents
from rim.core.prompt import PromptEncoder
from rim.core.unwrap import unwrap
from rim.evaluate.interventions import Intervention, block_states, patched_layers
from rim.infer.columns import Columns, PromptBatch, Row, build_columns, end_column


@dataclass(frozen=True)
class Prefilled:
    """The cache and, for every row, what it may see of it and where it continues."""

    cache: DynamicCache
    logits_NV: Tensor
    visible_NT: Tensor
    next_position_N: Tensor


def prefill(
    model: Any,
    encoder: PromptEncoder,
    batch: PromptBatch,
    rows: list[Row],
    *,
    final_only: bool,
    intervention: Intervention | None = None,
) -> Prefilled:
    """Run the prompts once and hand every row its view of the cache.

    Args:
        final_only: every row follows its last block, so the suffix can run in the same pass.
        intervention: what is done to the block states before a read-out sees them.
    """
    memory = encoder.format.memory
    # A suffix that may not see the question cannot be part of the causal trunk, and one that must
    # see altered blocks comes after the alteration.
    fold = final_only and memory.readouts_see_question and intervention is None
    columns = build_columns(model, encoder, batch, fold)
    ends = [end_column(encoder, batch, columns, row, fold) for row in rows]
    end_N = torch.tensor(ends, device=columns.real_BT.device)
    b_N = torch.tensor([row.b for row in rows], device=end_N.device)
    if feedback_of(encoder) is None and intervention is None:
        cache, logits_NV = _plain_pass(model, columns, b_N, ends)
        embeddings_BTE = None
    else:
        cache, logits_NV, embeddings_BTE = _filled_pass(
            model, encoder, batch, columns, b_N, intervention
        )
    if len(rows) != len(batch.prompts):
        cache.batch_select_indices(b_N)
    columns_1T = torch.arange(columns.width, device=end_N.device)[None]
    visible_NT = (columns.real_BT[b_N] == 1) & (columns_1T <= end_N[:, None])
    after_N1 = torch.tensor([row.after_block for row in rows], device=end_N.device)[:, None]
    beyond_question_NT = visible_NT & ((columns.block_BT[b_N] > 0) | (after_N1 == 0))
    if intervention is not None and intervention.hides_question:
        visible_NT = beyond_question_NT
    position_N = columns.position_BT[b_N, end_N]
    state = Prefilled(cache, logits_NV, visible_NT.long(), position_N + 1)
    if fold:
        return state
    suffix = _suffix(encoder, batch, rows)
    if embeddings_BTE is not None and not (suffix and _ends_filled(encoder, batch)):
        # The last token of the block runs again, live: after the alteration, or because the pass
        # that filled the latents kept no logits of it. Being trunk, it sees the question.
        before_NT = torch.where(columns_1T == end_N[:, None], 0, state.visible_NT)
        state = Prefilled(cache, logits_NV, before_NT, position_N)
        state = _feed(model, state, embeddings_BTE[b_N, end_N][:, None])
    if not memory.readouts_see_question:
        hidden_NT = state.visible_NT.clone()
        hidden_NT[:, : columns.width] *= beyond_question_NT
        state = dataclasses.replace(state, visible_NT=hidden_NT)
    return _feed(model, state, _embed(model, suffix, len(rows))) if suffix else state


def _ends_filled(encoder: PromptEncoder, batch: PromptBatch) -> bool:
    """Whether what follows the blocks reads them as they are, the last token included: a latent's
    own input is what an intervention is about, and it never runs live.
    """
    return bool(encoder.closing_ids) and all(batch.blocks)


def _plain_pass(
    model: Any, columns: Columns, b_N: Tensor, ends: list[int]
) -> tuple[DynamicCache, Tensor]:
    """All columns in one pass; logits at each row's end."""
    # Prompts share columns because they end together. No torch.unique: it would wait for the GPU.
    wanted = sorted(set(ends))
    cache = DynamicCache(config=unwrap(model).config)
    logits_BWV = model(
        input_ids=columns.input_BT,
        attention_mask=columns.mask,
        position_ids=columns.position_BT,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=torch.tensor(wanted, device=b_N.device),
    ).logits
    return cache, logits_BWV[
        b_N, torch.tensor([wanted.index(end) for end in ends], device=b_N.device)
    ]


def _filled_pass(
    model: Any,
    encoder: PromptEncoder,
    batch: PromptBatch,
    columns: Columns,
    b_N: Tensor,
    intervention: Intervention | None,
) -> tuple[DynamicCache, Tensor, Tensor]:
    """Latents filled by feedback, then the columns that are left; logits of the last column."""
    filled = _fill(model, encoder, columns)
    embeddings_BTE, cache, done = filled.embeddings_BWE, filled.cache, filled.done
    patch = contextlib.nullcontext()
    if intervention is not None and intervention.kind != "hide_question":
        cache, done = DynamicCache(config=unwrap(model).config), 0  # blocks run again, altered
        states = _replacing_states(model, encoder, batch, columns, embeddings_BTE, intervention)
        where_BT = columns.block_BT > 0
        if not _ends_filled(encoder, batch):
            where_BT[:, -1] = False  # the last token of the last block runs live
        patch = patched_layers(model, states, where_BT)
    with patch:
        logits_BV = model(
            inputs_embeds=embeddings_BTE[:, done:],
            attention_mask=columns.mask,
            position_ids=columns.position_BT[:, done:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
    return cache, logits_BV[b_N], embeddings_BTE


def _fill(model: Any, encoder: PromptEncoder, columns: Columns) -> Filled:
    """Input embeddings of all columns, latents filled where the method feeds states back."""
    feedback = feedback_of(encoder)
    if feedback is None:
        embeddings_BTE = unwrap(model).get_input_embeddings()(columns.input_BT)
        return Filled(embeddings_BTE, DynamicCache(config=unwrap(model).config), 0)
    return fill_latents(model, columns.input_BT, columns.position_BT, columns.real_BT, feedback)


def _replacing_states(
    model: Any,
    encoder: PromptEncoder,
    batch: PromptBatch,
    columns: Columns,
    embeddings_BTE: Tensor,
    intervention: Intervention,
) -> list[Tensor]:
    """What the block columns hold instead, for every layer, as wide as `columns`."""
    counts = set(batch.blocks)
    assert len(counts) == 1, "an intervention takes one number of blocks for all questions"
    shape = (counts.pop(), len(encoder.block_ids))
    if intervention.kind != "swap":
        states = block_states(model, embeddings_BTE, columns.mask, columns.position_BT)
        return intervention.alter(states, batch.questions, *shape)
    partners = [intervention.partners[question] for question in batch.questions]
    prompts = [encoder.prompt(q, k) for q, k in zip(partners, batch.blocks, strict=True)]
    others = PromptBatch(partners, prompts, batch.blocks)
    theirs = build_columns(model, encoder, others, fold=False)
    embeddings = _fill(model, encoder, theirs).embeddings_BWE
    states = block_states(model, embeddings, theirs.mask, theirs.position_BT)
    # Blocks stand in the last columns of both; what is left of them is never looked at.
    width = columns.width
    return [
        torch.nn.functional.pad(state, (0, 0, max(0, width - state.shape[1]), 0))[:, -width:]
        for state in states
    ]


def _suffix(encoder: PromptEncoder, batch: PromptBatch, rows: list[Row]) -> tuple[int, ...]:
    """What stands between blocks and answer; chat templates give every row the same."""
    suffixes = {encoder.readout_prefix_ids(batch.prompts[row.b], row.after_block) for row in rows}
    assert len(suffixes) == 1, "one chat template opens every answer in the same way"
    return suffixes.pop()


def _embed(model: Any, ids: Sequence[int], count: int) -> Tensor:
    """The embeddings of the same tokens for `count` rows, `[N, S, E]`."""
    plain = unwrap(model)
    ids_NS = torch.tensor([list(ids)] * count, device=plain.device, dtype=torch.long)
    return plain.get_input_embeddings()(ids_NS)


def _feed(model: Any, state: Prefilled, embeddings_NSE: Tensor) -> Prefilled:
    """Feed every row some tokens of its own."""
    count, length = embeddings_NSE.shape[:2]
    offsets_S = torch.arange(length, device=state.visible_NT.device)
    positions_NS = state.next_position_N[:, None] + offsets_S
    new_NS = torch.ones(count, length, dtype=torch.long, device=state.visible_NT.device)
    mask_NT = torch.cat([state.visible_NT, new_NS], 1)
    logits_NV = model(
        inputs_embeds=embeddings_NSE,
        attention_mask=mask_NT,
        position_ids=positions_NS,
        past_key_values=state.cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return Prefilled(state.cache, logits_NV, mask_NT, positions_NS[:, -1] + 1)
