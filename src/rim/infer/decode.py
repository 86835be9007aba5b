"""The only decoding code: one prefill, then answers after any block, batched, with a KV cache.

A batch is prefilled once with all blocks. Each wanted read-out becomes a row with its own copy of
the cache and a mask that hides the blocks after its own, so a row decodes exactly what a prompt
truncated there would. Rows never look at each other: a result does not depend on its batch mates.

Shape legend: B prompts, T padded trunk length, N rows (prompt x block x sample), S suffix, V
vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from rim.config import ConfigError
from rim.core.layout import build_trunk
from rim.core.prompt import Prompt, PromptEncoder
from rim.core.unwrap import unwrap
from rim.evaluate.interventions import Intervention
from rim.infer.columns import PromptBatch, Row
from rim.infer.prefill import Prefilled, prefill
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
    intervention: Intervention | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[list[Generated]]:
    """Decode answers to many questions.

    Args:
        blocks: blocks in the prompt, one number or one per question; 0 for methods without
            blocks.
        after: "final" reads out after the last block; "all" after every block, 1..K.
        max_new_tokens: the limit of an answer; less where the model's positions end.
        intervention: what is done to the block states first (controls); with `after` "final" only.
        progress: called with the number of questions done since the last call.

    Returns:
        Per question its read-outs by ascending block, the samples of one block next to each other.

    Raises:
        ConfigError: a question that does not fit the model's positions.
    """
    counts = [blocks] * len(questions) if isinstance(blocks, int) else list(blocks)
    if any(count < 0 for count in counts):
        raise ConfigError(f"the number of blocks must be >= 0, got {min(counts)}")
    prompts = [
        encoder.prompt(question, count) for question, count in zip(questions, counts, strict=True)
    ]
    for question, prompt, count in zip(questions, prompts, counts, strict=True):
        _check_fits(model, encoder, question, prompt, count)
    results: list[list[Generated]] = [[] for _ in questions]
    if intervention is not None:
        _check_intervention(encoder, after, counts)
    was_training = model.training
    if was_training:  # walking through all modules costs a millisecond, so only where needed
        model.eval()
    try:
        for chosen in _batches(prompts, counts, batch_size):
            batch = PromptBatch(
                [questions[i] for i in chosen],
                [prompts[i] for i in chosen],
                [counts[i] for i in chosen],
            )
            for row in _decode(
                model, encoder, batch, after, max_new_tokens, sampling or Sampling(), intervention
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


def _check_intervention(encoder: PromptEncoder, after: After, counts: Sequence[int]) -> None:
    if after != "final" or len({*counts}) > 1:
        raise ConfigError("an intervention needs one number of blocks and after='final'")
    if encoder.format.feedback != "none" and encoder.format.memory.framing == "none":
        raise ConfigError(
            "with framing 'none' the read-out begins at a latent, whose input no intervention "
            "reaches; controls need framing 'each' or 'once'"
        )


def _batches(
    prompts: Sequence[Prompt], counts: Sequence[int], batch_size: int
) -> Iterator[list[int]]:
    """Question numbers, batch by batch. Questions of like length share one, so little is spent on
    padding; those without blocks have batches of their own, for theirs end in other tokens.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].question_ids) + counts[i])
    for has_blocks in (False, True):
        group = [i for i in order if (counts[i] > 0) == has_blocks]
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def _check_fits(
    model: Any, encoder: PromptEncoder, question: str, prompt: Prompt, blocks: int
) -> None:
    limit = position_limit(model)
    trunk = build_trunk(prompt.question_ids, encoder.block_ids, blocks, encoder.opening_ids)
    length = len(trunk) + len(encoder.readout_prefix_ids(prompt, blocks))
    if limit is not None and length > limit:
        raise ConfigError(
            f"the question is too long: with {blocks} blocks it needs {length} positions, "
            f"the model has {limit} ({question[:40]!r}...)"
        )


def most_blocks(model: Any, encoder: PromptEncoder, questions: Sequence[str]) -> int:
    """The largest number of blocks that the model has positions for behind every question."""
    limit = position_limit(model)
    if limit is None:
        return sys.maxsize
    longest = max(len(encoder.prompt_ids(question, 1)) for question in questions)
    return max(0, 1 + (limit - longest) // len(encoder.block_ids))


def position_limit(model: Any) -> int | None:
    """How many positions the model has (GPT-2's is a table's size, others' the trained length)."""
    return getattr(unwrap(model).config, "max_position_embeddings", None)


@torch.inference_mode()
def _decode(
    model: Any,
    encoder: PromptEncoder,
    batch: PromptBatch,
    after: After,
    max_new_tokens: int,
    sampling: Sampling,
    intervention: Intervention | None,
) -> list[Row]:
    rows = [
        Row(b, block, sample)
        for b, count in enumerate(batch.blocks)
        for block in (range(1, count + 1) if after == "all" and count else [count])
        for sample in range(sampling.num_samples)
    ]
    state = prefill(
        model, encoder, batch, rows, final_only=after == "final", intervention=intervention
    )
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


def _token_budgets(model: Any, state: Prefilled, max_new_tokens: int) -> list[int]:
    """How many tokens each row may have: the model's positions end sooner for a longer prompt."""
    limit = position_limit(model)
    positions = state.next_position_N.tolist()
    if limit is None:
        return [max_new_tokens] * len(positions)
    # The last token is predicted, never fed, hence the + 1.
    return [min(max_new_tokens, limit - position + 1) for position in positions]


def _forward(
    model: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache
) -> Tensor:
    return model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
