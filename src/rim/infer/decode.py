"""The only decoding code: one prefill, then answers after any block, batched, with a KV cache.

All answers of a prompt grow side by side in its one row of the cache, kept apart by the attention
rule of training, so an answer is exactly what a prompt truncated after its block would give, at no
copy of the question. Finished answers leave, and so do prompts whose answers are all finished.
Prompts never look at each other: a result does not depend on the others of its batch.

Where the read-outs of a model run separately (`PromptFormat.readouts`, or a cache with states, that
holds one read-out only), every answer is a row of its own, of the prompt truncated after its block,
and the rows of a batch are of equal length: padding would enter a state.

Shape legend: B prompts, R answers a prompt being decoded, N answers being decoded, V vocabulary.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rim.config import ConfigError
from rim.core.layers import evaluating, state_kinds, text_config, unwrap
from rim.core.layout import PADDING
from rim.core.tokens import Prompt, PromptEncoder
from rim.infer.prefill import Between, Filled, Slot, prefill
from rim.infer.sampling import Sampling, TokenChooser

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


def refuse_interventions(model: Any, encoder: PromptEncoder) -> None:
    """
    Raises:
        ConfigError: this model's blocks cannot be altered between prompt and answer.
    """
    if runs_separately(model, encoder):
        raise ConfigError(
            "this model's read-outs run separately, each over a prompt of its own; an intervention "
            "needs a cache that they share, so this model has none"
        )
    if encoder.begins_at_a_latent:
        raise ConfigError(
            "here the answer begins at a latent, whose input is its own blocks' state and which no "
            "intervention reaches; use memory.framing each or once, or an answer with an opening"
        )


def generate(
    model: Any,
    encoder: PromptEncoder,
    questions: Sequence[str],
    *,
    blocks: int | Sequence[int],
    after: After = "final",
    max_new_tokens: int = 64,
    sampling: Sampling | None = None,
    batch_size: int = 64,
    between: Between | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[list[Generated]]:
    """Decode answers to many questions.

    Args:
        blocks: blocks in the prompt, one number or one per question; 0 for methods without blocks.
        after: "final" reads out after the last block; "all" after every block, 1..K.
        max_new_tokens: the limit of an answer; less where the model's positions end.
        between: called for every batch when its trunks are in the cache (controls); with one number
            of blocks and `after` "final" only.
        progress: called with the number of questions done since the last call.

    Returns:
        Per question its read-outs by ascending block, the samples of one block next to each other.

    Raises:
        ConfigError: a question that does not fit the model's positions.
    """
    counts = [blocks] * len(questions) if isinstance(blocks, int) else list(blocks)
    if between is not None:
        if after != "final" or len(set(counts)) > 1:
            raise ConfigError("an intervention needs one number of blocks and after='final'")
        refuse_interventions(model, encoder)
    limit, sampling = position_limit(model), sampling or Sampling()
    prompts = _prompts(encoder, questions, counts, limit)
    rows = _rows(encoder, prompts, after, sampling.num_samples, runs_separately(model, encoder))
    results: list[list[Generated]] = [[] for _ in questions]
    with evaluating(model):
        for batch in _batches(rows, batch_size):
            slots = _decode(model, encoder, batch, max_new_tokens, limit, sampling, between)
            for slot in slots:
                text = str(encoder.tokenizer.decode(slot.token_ids, skip_special_tokens=True))
                ids = tuple(slot.token_ids)
                generated = Generated(slot.after_block, text, ids, slot.logprob, slot.finished)
                results[batch[slot.b].number].append(generated)
            if progress:
                progress(sum(row.is_last for row in batch))
    return results


def _prompts(
    encoder: PromptEncoder, questions: Sequence[str], counts: Sequence[int], limit: int | None
) -> list[Prompt]:
    """
    Raises:
        ConfigError: one does not fit the model's positions, or has less than no blocks.
    """
    if any(count < 0 for count in counts):
        raise ConfigError(f"the number of blocks must be >= 0, got {min(counts)}")
    if limit is not None and (most := max(counts, default=0)) > limit:
        raise ConfigError(f"{most} blocks are too many: the model has {limit} positions")
    prompts = [encoder.prompt(q, count) for q, count in zip(questions, counts, strict=True)]
    for prompt in prompts:
        if limit is not None and len(prompt.ids) > limit:
            raise ConfigError(
                f"the question is too long: with {prompt.trunk.num_blocks} blocks it needs "
                f"{len(prompt.ids)} positions, the model has {limit} ({prompt.question[:40]!r}...)"
            )
    return prompts


@dataclass(frozen=True)
class _Row:
    """A row of the cache to be: question `number`, and the (block, sample) pairs that are decoded
    in it; `is_last`: the question has no other row behind this one.
    """

    number: int
    prompt: Prompt
    answers: tuple[tuple[int, int], ...]
    equal_lengths: bool
    is_last: bool = True


def runs_separately(model: Any, encoder: PromptEncoder) -> bool:
    """Whether every answer needs a row of its own."""
    return encoder.format.readouts == "separate" or bool(state_kinds(unwrap(model).config))


def _rows(
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    after: After,
    num_samples: int,
    separately: bool,
) -> list[_Row]:
    """All answers of a prompt in one row, or one row each; by ascending block in either case."""
    rows: list[_Row] = []
    for number, prompt in enumerate(prompts):
        count = prompt.trunk.num_blocks
        wanted = range(1, count + 1) if after == "all" and count else [count]
        pairs = tuple((block, sample) for block in wanted for sample in range(num_samples))
        if not separately:
            rows.append(_Row(number, prompt, pairs, equal_lengths=False))
            continue
        cut = {block: encoder.prompt(prompt.question, block) for block in wanted}
        rows += [
            _Row(number, cut[pair[0]], (pair,), equal_lengths=True, is_last=pair == pairs[-1])
            for pair in pairs
        ]
    return rows


def _batches(rows: Sequence[_Row], batch_size: int) -> Iterator[list[_Row]]:
    """Rows, batch by batch. Prompts of like length share one, so little is spent on padding (of
    equal length, where there must be none); those without blocks have batches of their own, for
    theirs end in other tokens.
    """

    def group_of(row: _Row) -> tuple[bool, int]:
        return row.prompt.trunk.num_blocks > 0, len(row.prompt.ids) if row.equal_lengths else 0

    ordered = sorted(rows, key=lambda row: len(row.prompt.trunk.ids))
    for _, same in itertools.groupby(sorted(ordered, key=group_of), group_of):
        group = list(same)
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def most_blocks(
    model: Any, encoder: PromptEncoder, questions: Sequence[str], answer_tokens: int = 1
) -> int:
    """The largest number of blocks behind which the model has positions for every question's
    answer.
    """
    limit = position_limit(model)
    if limit is None:
        return sys.maxsize
    longest = max(len(encoder.prompt_ids(question, 1)) for question in questions)
    # The last token of an answer is predicted, never fed.
    room = limit - longest - (answer_tokens - 1)
    return max(0, 1 + room // len(encoder.block_ids))


def position_limit(model: Any) -> int | None:
    """How many positions the model has (GPT-2's is a table's size, others' the trained length).

    "longrope" turns all positions of a batch by other angles once one of them is beyond the first
    training length. There a prompt would depend on the others of its batch, so it ends there.
    """
    config = text_config(unwrap(model).config)
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        limits.append(rope.get("original_max_position_embeddings"))
    return min((limit for limit in limits if limit is not None), default=None)


@torch.inference_mode()
def _decode(
    model: Any,
    encoder: PromptEncoder,
    batch: Sequence[_Row],
    max_new_tokens: int,
    limit: int | None,
    sampling: Sampling,
    between: Between | None,
) -> list[Slot]:
    prompts = [row.prompt for row in batch]
    slots = [
        Slot(b, *pair, segment)
        for b, row in enumerate(batch)
        for segment, pair in enumerate(row.answers, 1)
    ]
    filled, logits_NV = prefill(model, encoder, prompts, slots, between)
    choose = TokenChooser(
        sampling,
        [f"{prompts[slot.b].question}/{slot.after_block}/{slot.sample}" for slot in slots],
        (*encoder.memory_ids, *(encoder.stop_ids if sampling.stop == "forbidden" else [])),
        max_new_tokens,
        logits_NV.device,
    )
    active = list(range(len(slots)))
    rows = list(range(len(prompts)))  # the prompt of every row of the cache
    for step in range(max_new_tokens):
        token_N, logprob_N = choose(logits_NV, active, step)
        left = []
        for n, token, logprob in zip(active, token_N.tolist(), logprob_N.tolist(), strict=True):
            slot = slots[n]
            slot.logprob += logprob
            slot.finished = token in encoder.stop_ids
            if slot.finished:
                continue
            slot.token_ids.append(token)
            # The last token is predicted, never fed.
            if step + 1 < max_new_tokens and (limit is None or slot.position < limit):
                left.append(n)
        active = left
        if not active:
            break
        rows = _drop_finished(filled, rows, {slots[n].b for n in active})
        logits_NV = _feed(filled, rows, [slots[n] for n in active])
    return slots


def _drop_finished(filled: Filled, rows: list[int], needed: set[int]) -> list[int]:
    """Let finished prompts go once they are half of the batch: each time copies what is kept."""
    kept = [i for i, b in enumerate(rows) if b in needed]
    if 2 * len(kept) > len(rows):
        return rows
    filled.keep_prompts(kept)
    return [rows[i] for i in kept]


def _feed(filled: Filled, rows: list[int], slots: Sequence[Slot]) -> Tensor:
    """Feed the newest token of every slot; logits `[N, V]` of the next, in their order."""
    row_of = {b: i for i, b in enumerate(rows)}
    by_row: list[list[Slot]] = [[] for _ in rows]
    places = []
    for slot in slots:
        row = row_of[slot.b]
        places.append((row, len(by_row[row])))
        by_row[row].append(slot)
    width = max(len(own) for own in by_row)
    table = [
        [(s.token_ids[-1], s.position, s.segment, s.after_block) for s in own]
        + [(0, 0, PADDING, PADDING)] * (width - len(own))
        for own in by_row
    ]
    fields_BR4 = torch.tensor(table, device=filled.device)
    ids_BR, position_BR, segment_BR, block_BR = fields_BR4.unbind(-1)
    filled.extend(segment_BR, block_BR, position_BR)
    for slot in slots:
        slot.position += 1
    logits_BRV = filled.run(width, range(width), input_ids=ids_BR)
    row_N, place_N = torch.tensor(places, device=filled.device).T
    return logits_BRV[row_N, place_N]
