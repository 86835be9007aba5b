"""The only decoding code: one prefill, then answers after any block, batched, with a KV cache.

A batch is prefilled once with all blocks. Each wanted read-out becomes a row with its own copy of
the cache and a mask that hides the blocks after its own, so a row decodes exactly what a prompt
truncated there would. Rows never look at each other: a result does not depend on its batch mates.

Shape legend: B prompts, T padded trunk length, N rows (prompt x block x sample), S suffix, V
vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from rim.config import ConfigError
from rim.layout import PADDING, TRUNK_SEGMENT, block_end_positions, build_trunk
from rim.masks import build_attention_mask
from rim.modeling import unwrap
from rim.sampling import Sampling, TokenChooser
from rim.tokens import Prompt, PromptEncoder

After = Literal["final", "all"]


@dataclass(frozen=True)
class Generated:
    """One decoded text after block `after_block`; `finished` is False where the token limit cut it
    off.
    """

    after_block: int
    text: str
    token_ids: tuple[int, ...]
    logprob: float
    finished: bool


@dataclass
class _Row:
    """One sequence being decoded: prompt `b` of the batch, read out after block `after_block`."""

    b: int
    after_block: int
    sample: int
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finished: bool = False


def generate(
    model: Any,
    encoder: PromptEncoder,
    questions: Sequence[str],
    *,
    num_blocks: int | Sequence[int],
    after: After = "final",
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[list[Generated]]:
    """Decode answers to many questions.

    Args:
        num_blocks: blocks in the prompt, one number or one per question; 0 for methods without
            blocks.
        after: "final" reads out after the last block; "all" after every block, 1..K.
        max_new_tokens: the limit of an answer; less where the model's positions end.
        progress: called with the number of questions done since the last call.

    Returns:
        Per question its read-outs by ascending block, the samples of one block next to each other.

    Raises:
        ConfigError: a question that does not fit the model's positions.
    """
    counts = [num_blocks] * len(questions) if isinstance(num_blocks, int) else list(num_blocks)
    if any(count < 0 for count in counts):
        raise ConfigError(f"the number of blocks must be >= 0, got {min(counts)}")
    prompts = [encoder.prompt(question) for question in questions]
    for question, prompt, count in zip(questions, prompts, counts, strict=True):
        _check_fits(model, encoder, question, prompt, count)
    results: list[list[Generated]] = [[] for _ in questions]
    # Questions of like length share a batch, so little is spent on padding.
    order = sorted(range(len(questions)), key=lambda i: len(prompts[i].question_ids) + counts[i])
    was_training = model.training
    if was_training:  # walking through all modules costs a millisecond, so only where needed
        model.eval()
    try:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = _Batch(
                [questions[i] for i in chosen],
                [prompts[i] for i in chosen],
                [counts[i] for i in chosen],
            )
            for row in _decode(
                model, encoder, batch, after, max_new_tokens, sampling or Sampling()
            ):
                text = str(encoder.tokenizer.decode(row.token_ids, skip_special_tokens=True))
                generated = Generated(
                    row.after_block, text, tuple(row.token_ids), row.logprob, row.finished
                )
                results[chosen[row.b]].append(generated)
            if progress:
                progress(len(chosen))
    finally:
        if was_training:
            model.train()
    return results


@dataclass(frozen=True)
class _Batch:
    questions: list[str]
    prompts: list[Prompt]
    num_blocks: list[int]


@dataclass(frozen=True)
class _Prefill:
    """The shared cache and, for every row, what it may see of it and where it continues."""

    cache: DynamicCache
    logits_NV: Tensor
    visible_NT: Tensor
    next_position_N: Tensor


def _check_fits(
    model: Any, encoder: PromptEncoder, question: str, prompt: Prompt, num_blocks: int
) -> None:
    limit = position_limit(model)
    length = len(prompt.question_ids) + num_blocks * len(encoder.block_ids) + len(prompt.suffix_ids)
    if limit is not None and length > limit:
        raise ConfigError(
            f"the question is too long: with {num_blocks} blocks it needs {length} positions, "
            f"the model has {limit} ({question[:40]!r}...)"
        )


def position_limit(model: Any) -> int | None:
    """How many positions the model has (GPT-2's is a table's size, others' the trained length)."""
    return getattr(unwrap(model).config, "max_position_embeddings", None)


@torch.inference_mode()
def _decode(
    model: Any,
    encoder: PromptEncoder,
    batch: _Batch,
    after: After,
    max_new_tokens: int,
    sampling: Sampling,
) -> list[_Row]:
    rows = [
        _Row(b, block, sample)
        for b, count in enumerate(batch.num_blocks)
        for block in (range(1, count + 1) if after == "all" and count else [count])
        for sample in range(sampling.num_samples)
    ]
    state = _prefill(model, encoder, batch, rows, fold_suffix=after == "final")
    budgets = _token_budgets(model, state, max_new_tokens)
    choose = TokenChooser(
        sampling,
        [f"{batch.questions[row.b]}/{row.after_block}/{row.sample}" for row in rows],
        (*encoder.memory_ids, *([encoder.stop_id] if sampling.stop == "forbidden" else [])),
        max_new_tokens,
        state.logits_NV.device,
    )
    last_position = (position_limit(model) or sys.maxsize) - 1
    logits_NV, mask_NT, position_N = state.logits_NV, state.visible_NT, state.next_position_N
    active = set(range(len(rows)))
    for step in range(max(budgets)):
        token_N, logprob_N = choose(logits_NV, step)
        tokens, logprobs = token_N.tolist(), logprob_N.tolist()
        for n in tuple(active):
            row = rows[n]
            row.logprob += logprobs[n]
            row.finished = tokens[n] == encoder.stop_id
            if not row.finished:
                row.token_ids.append(tokens[n])
            if row.finished or step + 1 == budgets[n]:
                active.remove(n)
        if not active:
            break
        mask_NT = torch.cat([mask_NT, torch.ones_like(mask_NT[:, :1])], 1)
        logits_NV = _forward(model, token_N[:, None], mask_NT, position_N[:, None], state.cache)
        logits_NV = logits_NV[:, -1]
        # Rows that are done ride along; their positions must still exist.
        position_N = (position_N + 1).clamp(max=last_position)
    return rows


def _token_budgets(model: Any, state: _Prefill, max_new_tokens: int) -> list[int]:
    """How many tokens each row may have: the model's positions end sooner for a longer prompt."""
    limit = position_limit(model)
    positions = state.next_position_N.tolist()
    if limit is None:
        return [max_new_tokens] * len(positions)
    # The last token is predicted, never fed, hence the + 1.
    return [min(max_new_tokens, limit - position + 1) for position in positions]


def _forward(
    model: Any, ids: Tensor, mask: Any, positions: Tensor, cache: DynamicCache, keep: Any = 1
) -> Tensor:
    return model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    ).logits


def _prefill(
    model: Any, encoder: PromptEncoder, batch: _Batch, rows: list[_Row], fold_suffix: bool
) -> _Prefill:
    """Run the trunks once and hand every row its view of the cache.

    `fold_suffix` runs the suffix in the same pass: right when every row follows its last block.
    """
    device = unwrap(model).device
    blocks = encoder.format.blocks
    # A suffix that may not see the question cannot be part of the causal trunk.
    fold_suffix = fold_suffix and blocks.readouts_see_question
    trunks, segments, block_of = [], [], []
    for prompt, count in zip(batch.prompts, batch.num_blocks, strict=True):
        trunk = build_trunk(prompt.question_ids, encoder.block_ids, count)
        suffix = list(prompt.suffix_ids) if fold_suffix else []
        numbers = [0] * len(prompt.question_ids) + [
            k + 1 for k in range(count) for _ in encoder.block_ids
        ]
        trunks.append(trunk + suffix)
        segments.append([TRUNK_SEGMENT] * len(trunk) + [TRUNK_SEGMENT + 1] * len(suffix))
        block_of.append(numbers + [count] * len(suffix))
    length = max(map(len, trunks))
    input_BT = _left_pad(trunks, length, encoder.pad_id, device)
    segment_BT = _left_pad(segments, length, PADDING, device)
    block_BT = _left_pad(block_of, length, PADDING, device)
    real_BT = (segment_BT != PADDING).long()
    position_BT = (real_BT.cumsum(1) - 1).clamp(min=0)

    mask: Any = real_BT
    if blocks.attention == "bidirectional":
        plain = unwrap(model)
        mask = build_attention_mask(
            plain.config._attn_implementation,
            segment_BT,
            block_BT,
            plain.dtype,
            bidirectional_blocks=True,
        )
    end_of_row = [
        _end_column(batch, encoder, row, length, len(trunks[row.b]), fold_suffix) for row in rows
    ]
    end_N = torch.tensor(end_of_row, device=device)
    b_N = torch.tensor([row.b for row in rows], device=device)
    wanted_N = torch.unique(
        end_N
    )  # sorted; columns are shared by prompts because they end together
    cache = DynamicCache(config=unwrap(model).config)
    logits_BWV = _forward(model, input_BT, mask, position_BT, cache, keep=wanted_N)
    logits_NV = logits_BWV[b_N, torch.searchsorted(wanted_N, end_N)]

    if len(rows) != len(trunks):
        cache.batch_select_indices(b_N)
    columns_1T = torch.arange(length, device=device)[None]
    visible_NT = (real_BT[b_N] == 1) & (columns_1T <= end_N[:, None])
    if not blocks.readouts_see_question:
        after_N1 = torch.tensor([row.after_block for row in rows], device=device)[:, None]
        visible_NT &= (block_BT[b_N] > 0) | (after_N1 == 0)
    next_position_N = position_BT[b_N, end_N] + 1
    state = _Prefill(cache, logits_NV, visible_NT.long(), next_position_N)
    return state if fold_suffix else _feed_suffix(model, batch, rows, state)


def _end_column(
    batch: _Batch, encoder: PromptEncoder, row: _Row, length: int, own_length: int, folded: bool
) -> int:
    """Column of the token that predicts the row's first token."""
    if folded:
        return length - 1
    ends = block_end_positions(
        len(batch.prompts[row.b].question_ids), len(encoder.block_ids), batch.num_blocks[row.b]
    )
    return length - own_length + ends[row.after_block]


def _feed_suffix(model: Any, batch: _Batch, rows: list[_Row], state: _Prefill) -> _Prefill:
    """Feed what stands between blocks and answer, once per row; chat templates give every row the
    same.
    """
    suffixes = {batch.prompts[row.b].suffix_ids for row in rows}
    assert len(suffixes) == 1, "one chat template opens every answer in the same way"
    suffix = suffixes.pop()
    if not suffix:
        return state
    device = state.visible_NT.device
    ids_NS = torch.tensor([suffix] * len(rows), device=device)
    positions_NS = state.next_position_N[:, None] + torch.arange(len(suffix), device=device)
    mask = torch.cat([state.visible_NT, torch.ones_like(ids_NS)], 1)
    logits_NV = _forward(model, ids_NS, mask, positions_NS, state.cache)[:, -1]
    return _Prefill(state.cache, logits_NV, mask, positions_NS[:, -1] + 1)


def _left_pad(lists: Iterable[list[int]], length: int, value: int, device: torch.device) -> Tensor:
    return torch.tensor([[value] * (length - len(ids)) + ids for ids in lists], device=device)
