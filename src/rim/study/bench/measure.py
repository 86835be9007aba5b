"""Timing one cell after another.

Methods take turns within a repeat, and ratios are formed within a repeat: what else the machine
does then falls on all alike.
"""

from __future__ import annotations

import copy
import functools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from rim.config import ConfigError, PromptFormat
from rim.core.tokens import PromptEncoder
from rim.infer.decode import generate, position_limit
from rim.infer.sampling import Sampling
from rim.methods import METHODS
from rim.models.modules import attach_module
from rim.study.bench.settings import BenchmarkSettings
from rim.study.bench.subject import TimedModel
from rim.study.bench.timing import Clock, memory_kind, peak_memory, spread, timed

Progress = Callable[[str], None]
#: Milliseconds of one repeat: to the first token, to the answer's first, to its last; and of each
#: token after the first.
_Times = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """One row of a cell: a method, its prompts, its number of blocks and of written step tokens."""

    method: str
    model: Any
    encoder: PromptEncoder
    blocks: int
    step_tokens: int
    answer_tokens: int

    @property
    def all_tokens(self) -> int:
        return self.step_tokens + self.answer_tokens

    @property
    def prompt_tokens(self) -> int:
        """Tokens that are prefilled: question and blocks."""
        return len(self.encoder.prompt_ids("", self.blocks))

    def write(self, questions: Sequence[str], tokens: int) -> set[int]:
        """Write so many tokens for every question; returns the lengths that came out."""
        results = generate(
            self.model,
            self.encoder,
            questions,
            blocks=self.blocks,
            max_new_tokens=tokens,
            sampling=Sampling(stop="forbidden"),
            batch_size=len(questions),
        )
        return {len(generated.token_ids) for texts in results for generated in texts}


class RandomPrompts(PromptEncoder):
    """Prompts of exactly so many random ordinary tokens; a question's text is only its seed."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat, question_tokens: int
    ):
        super().__init__(tokenizer, prompt_format)
        self.question_tokens = question_tokens
        special = set(tokenizer.all_special_ids) | set(self.memory_ids)
        self._ordinary_ids = [i for i in range(len(tokenizer)) if i not in special]

    def question(self, question: str, has_blocks: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rng = random.Random(question)
        return tuple(rng.choices(self._ordinary_ids, k=self.question_tokens)), ()


def run_benchmark(
    subject: TimedModel,
    settings: BenchmarkSettings,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Time every cell of batch sizes x question lengths.

    Args:
        progress: called after each repeat of a cell with the cell's name.

    Returns:
        `model`, `settings`, `memory` (what peak memory means here) and `rows`, one for every
        method, K, batch size and question length; see docs/latency.md.

    Raises:
        ConfigError: a prompt and its answer do not fit the model's positions.
    """
    cells = [
        (batch_size, length, variants(subject, settings, length))
        for length in settings.question_tokens
        for batch_size in settings.batch_sizes
    ]
    for _, length, rows in cells:
        _check_fits(subject.model, rows, length)
    measured = [
        row
        for batch_size, length, rows in cells
        for row in _measure_cell(subject, settings, batch_size, length, rows, progress, clock)
    ]
    return {
        "model": subject.description,
        "settings": settings.model_dump(mode="json"),
        "memory": memory_kind(subject.model.device),
        "rows": measured,
    }


def variants(
    subject: TimedModel, settings: BenchmarkSettings, question_tokens: int
) -> list[Variant]:
    """Every method asked for, a method with swept blocks once per K."""
    found = []
    for method in settings.methods:
        setup = METHODS[method].bench
        for count in settings.blocks if setup.blocks == "swept" else (setup.blocks,):
            memory = subject.memory_for(method).model_copy(
                update={**setup.memory, **({"blocks": count} if count else {})}
            )
            encoder = RandomPrompts(
                subject.tokenizer, PromptFormat(method=method, memory=memory), question_tokens
            )
            steps = settings.step_tokens if setup.writes_steps else 0
            model = _model_for(subject, method)
            found.append(Variant(method, model, encoder, count, steps, settings.answer_tokens))
    return found


def _model_for(subject: TimedModel, method: str) -> Any:
    """The shared model; that of a method with modules of its own has them besides, over the same
    weights.
    """
    modules = METHODS[method].extra_modules
    if not modules:
        return subject.model
    model = copy.deepcopy(subject.model, {id(p): p for p in subject.model.parameters()})
    for name, make in modules.items():
        attach_module(model, name, make(model.get_input_embeddings().weight.shape[1]))
    return model


def _check_fits(model: Any, rows: Sequence[Variant], question_tokens: int) -> None:
    limit = position_limit(model)
    for row in rows:
        needed = row.prompt_tokens + row.all_tokens
        if limit is not None and needed > limit:
            raise ConfigError(
                f"{row.method} with a question of {question_tokens} tokens and {row.blocks} "
                f"blocks needs {needed} positions, the model has {limit}: ask for less"
            )


def _measure_cell(
    subject: TimedModel,
    settings: BenchmarkSettings,
    batch_size: int,
    question_tokens: int,
    rows: Sequence[Variant],
    progress: Progress | None,
    clock: Clock,
) -> list[dict[str, Any]]:
    questions = [f"{settings.seed}/{question_tokens}/{b}" for b in range(batch_size)]
    device = subject.model.device

    def milliseconds(row: Variant, tokens: int) -> float:
        """Until every question of the batch has so many tokens."""
        taken, found = timed(lambda: row.write(questions, tokens), device, clock)
        assert found == {tokens}, f"asked for {tokens} tokens, got {found}"
        return taken

    memory: list[float | None] = []
    times: list[list[_Times]] = []
    for repeat in range(settings.warmup + settings.repeats):
        if repeat < settings.warmup:
            memory = [
                peak_memory(functools.partial(row.write, questions, row.all_tokens), device)
                for row in rows
            ]
        else:
            times.append(_measure_once(milliseconds, rows, len(times)))
        if progress:
            progress(f"{question_tokens} tokens, batch {batch_size}")
    by_row = list(zip(*times, strict=True))
    direct = [o for row, o in zip(rows, by_row, strict=True) if METHODS[row.method].bench.baseline]
    return [
        {
            "method": row.method,
            "blocks": row.blocks,
            "batch_size": batch_size,
            "question_tokens": question_tokens,
            "prompt_tokens": row.prompt_tokens,
            "step_tokens": row.step_tokens,
            "answer_tokens": row.answer_tokens,
            **{key: spread([t[key] for t in own]) for key in own[0]},
            "ttft_to_direct": _ratio("ttft_ms", own, direct),
            "answer_to_direct": _ratio("answer_ms", own, direct),
            "peak_memory_mib": None if peak is None else round(peak, 1),
        }
        for row, own, peak in zip(rows, by_row, memory, strict=True)
    ]


def _measure_once(
    milliseconds: Callable[[Variant, int], float], rows: Sequence[Variant], repeat: int
) -> list[_Times]:
    """One repeat: every method's first token, then every first answer token, then every answer.

    What is compared runs next to each other; another method begins each time.
    """
    order = [(repeat + i) % len(rows) for i in range(len(rows))]
    prefill = {n: milliseconds(rows[n], 1) for n in order}
    # What writes no steps has its answer's first token after the prefill.
    ttft = {
        n: milliseconds(rows[n], steps + 1) if (steps := rows[n].step_tokens) else prefill[n]
        for n in order
    }
    answer = {n: milliseconds(rows[n], rows[n].all_tokens) for n in order}
    return [
        {
            "prefill_ms": prefill[n],
            "ttft_ms": ttft[n],
            "answer_ms": answer[n],
            "decode_ms_per_token": (answer[n] - prefill[n]) / (row.all_tokens - 1),
        }
        for n, row in enumerate(rows)
    ]


def _ratio(
    key: str, own: Sequence[_Times], direct: Sequence[Sequence[_Times]]
) -> dict[str, float] | None:
    """To direct answers of the same repeat, if those were asked for."""
    if not direct:
        return None
    return spread([a[key] / b[key] for a, b in zip(own, direct[0], strict=True)])
