"""Timing one cell after another.

Methods take turns within a repeat, and ratios are formed within a repeat: what else the machine
does then falls on all alike.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from rim.config import ConfigError, PromptFormat
from rim.core.prompt import PromptEncoder
from rim.infer.decode import generate, position_limit
from rim.infer.sampling import Sampling
from rim.methods import METHODS
from rim.models.loading import attach_module
from rim.study.bench.settings import BenchmarkSettings
from rim.study.bench.subject import Subject
from rim.study.bench.timing import Clock, Spread, memory_kind, peak_memory, timed

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """One row of a cell: a method, its prompts, its number of blocks and of written step tokens."""

    method: str
    model: Any
    encoder: PromptEncoder
    blocks: int
    step_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens that are prefilled: question and blocks."""
        return len(self.encoder.prompt_ids("", self.blocks))


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
    subject: Subject,
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
        _check_fits(subject.model, rows, length, settings.answer_tokens)
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


def variants(subject: Subject, settings: BenchmarkSettings, question_tokens: int) -> list[Variant]:
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
            found.append(Variant(method, _model_for(subject, method), encoder, count, steps))
    return found


def _model_for(subject: Subject, method: str) -> Any:
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


def _check_fits(
    model: Any, rows: Sequence[Variant], question_tokens: int, answer_tokens: int
) -> None:
    limit = position_limit(model)
    for row in rows:
        needed = row.prompt_tokens + row.step_tokens + answer_tokens
        if limit is not None and needed > limit:
            raise ConfigError(
                f"{row.method} with a question of {question_tokens} tokens and {row.blocks} "
                f"blocks needs {needed} positions, the model has {limit}: ask for less"
            )


def _measure_cell(
    subject: Subject,
    settings: BenchmarkSettings,
    batch_size: int,
    question_tokens: int,
    rows: Sequence[Variant],
    progress: Progress | None,
    clock: Clock,
) -> list[dict[str, Any]]:
    questions = [f"{settings.seed}/{question_tokens}/{b}" for b in range(batch_size)]
    runs = [_Runs(row.model, row, questions, settings.answer_tokens, clock) for row in rows]
    memory: list[float | None] = []
    times: list[list[_Times]] = []
    for repeat in range(settings.warmup + settings.repeats):
        if repeat < settings.warmup:
            memory = [peak_memory(run.answer, subject.model.device) for run in runs]
        else:
            times.append(_measure_once(runs, len(times)))
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
            "answer_tokens": settings.answer_tokens,
            **_summary(own, direct[0] if direct else None),
            "peak_memory_mib": None if peak is None else round(peak, 1),
        }
        for row, own, peak in zip(rows, by_row, memory, strict=True)
    ]


@dataclass(frozen=True)
class _Times:
    """Milliseconds of one repeat: to the first token, to the answer's first, to its last; and of
    each token after the first.
    """

    prefill: float
    ttft: float
    answer: float
    decode_per_token: float


@dataclass(frozen=True)
class _Runs:
    """The calls of one variant that are timed."""

    model: Any
    row: Variant
    questions: Sequence[str]
    answer_tokens: int
    clock: Clock

    @property
    def all_tokens(self) -> int:
        return self.row.step_tokens + self.answer_tokens

    def answer(self) -> set[int]:
        """The whole answer, once."""
        return self.generate(self.all_tokens)

    def timed(self, tokens: int) -> float:
        """Milliseconds until every question of the batch has so many tokens."""
        milliseconds, lengths = timed(lambda: self.generate(tokens), self.model.device, self.clock)
        assert lengths == {tokens}, f"asked for {tokens} tokens, got {lengths}"
        return milliseconds

    def generate(self, tokens: int) -> set[int]:
        """Write so many tokens for every question; returns the lengths that came out."""
        results = generate(
            self.model,
            self.row.encoder,
            self.questions,
            blocks=self.row.blocks,
            max_new_tokens=tokens,
            sampling=Sampling(stop="forbidden"),
            batch_size=len(self.questions),
        )
        return {len(generated.token_ids) for texts in results for generated in texts}


def _measure_once(runs: Sequence[_Runs], repeat: int) -> list[_Times]:
    """One repeat: every method's first token, then every first answer token, then every answer.

    What is compared runs next to each other; another method begins each time.
    """
    count = len(runs)
    order = [(repeat + i) % count for i in range(count)]
    prefill = {n: runs[n].timed(1) for n in order}
    # What writes no steps has its answer's first token after the prefill.
    ttft = {
        n: runs[n].timed(steps + 1) if (steps := runs[n].row.step_tokens) else prefill[n]
        for n in order
    }
    answer = {n: runs[n].timed(runs[n].all_tokens) for n in order}
    return [
        _Times(prefill[n], ttft[n], answer[n], (answer[n] - prefill[n]) / (runs[n].all_tokens - 1))
        for n in range(count)
    ]


def _summary(own: Sequence[_Times], direct: Sequence[_Times] | None) -> dict[str, Any]:
    """Medians with quartiles, and the ratios to direct answers of the same repeat."""
    summary: dict[str, Any] = {
        "prefill_ms": _spread([t.prefill for t in own]),
        "ttft_ms": _spread([t.ttft for t in own]),
        "answer_ms": _spread([t.answer for t in own]),
        "decode_ms_per_token": _spread([t.decode_per_token for t in own]),
        "ttft_to_direct": None,
        "answer_to_direct": None,
    }
    if direct is not None:
        pairs = list(zip(own, direct, strict=True))
        summary["ttft_to_direct"] = _spread([a.ttft / b.ttft for a, b in pairs])
        summary["answer_to_direct"] = _spread([a.answer / b.answer for a, b in pairs])
    return summary


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(Spread.of(values)).items()}
