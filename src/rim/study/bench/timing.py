"""What a call costs: milliseconds, their spread over repeats, and peak memory."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import torch

from rim.data.examples import Example
from rim.infer.reasoner import Answer, Reasoner

Result = TypeVar("Result")
Clock = Callable[[], float]
MemoryKind = Literal["device_allocated", "process_resident"]

_MIB = 2**20


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median of repeats with the quartiles: half of the repeats lie between `low` and `high`."""
    if len(values) < 2:
        low = median = high = values[0]
    else:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timed(
    call: Callable[[], Result], device: torch.device, clock: Clock = time.perf_counter
) -> tuple[float, Result]:
    """Milliseconds of a call, the device's work before it left out and its own included."""
    synchronise(device)
    start = clock()
    result = call()
    synchronise(device)
    return 1000 * (clock() - start), result


def memory_kind(device: torch.device) -> MemoryKind | None:
    """Name the memory that `peak_memory` measures here; None where nothing can be measured."""
    if device.type == "cuda":
        return "device_allocated"
    return "process_resident" if device.type == "cpu" and _reset_peak_resident() else None


def peak_memory(call: Callable[[], Result], device: torch.device) -> float | None:
    """Peak memory during a call, in MiB, the model's weights included.

    On CUDA what the allocator gave out. On a CPU the process's peak resident memory, Python and
    libraries included, which Linux alone can measure for one call: elsewhere None.
    """
    kind = memory_kind(device)
    if kind == "device_allocated":
        torch.cuda.reset_peak_memory_stats(device)
    call()
    synchronise(device)
    if kind == "device_allocated":
        return torch.cuda.max_memory_allocated(device) / _MIB
    return _peak_resident() if kind == "process_resident" else None


def _reset_peak_resident() -> bool:
    """Let the process's peak begin at what it holds now; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peak_resident() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found, "Linux states the peak of every process"
    return int(found[1]) / 1024


@contextlib.contextmanager
def limited_threads(count: int) -> Generator[None]:
    """torch on so many threads: one is fastest for tiny models, and steadier on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_answers(
    reasoner: Reasoner,
    questions: Sequence[str],
    *,
    max_new_tokens: int = 64,
    warmup: int = 3,
) -> dict[str, float]:
    """Median milliseconds of one question at a time: to the first token of the answer (chain of
    thought has written its steps by then), and to its last.

    Each question is asked twice in a row, for the whole and for so many tokens, so both see
    the same machine.
    """
    for question in list(questions)[:warmup]:
        reasoner.ask(question, max_new_tokens=max_new_tokens)

    def ask(question: str, limit: int) -> tuple[float, Answer]:
        call = functools.partial(reasoner.ask, question, max_new_tokens=limit)
        return timed(call, reasoner.model.device)

    first, whole, tokens = [], [], []
    for question in questions:
        milliseconds, answer = ask(question, max_new_tokens)
        whole.append(milliseconds)
        tokens.append(answer.num_tokens)
        first.append(ask(question, _tokens_to_answer(reasoner, answer))[0])
    return {
        "ttft_ms": statistics.median(first),
        "answer_ms": statistics.median(whole),
        "tokens": statistics.fmean(tokens),
    }


def time_in_turns(
    reasoners: Mapping[str, Reasoner],
    examples: Sequence[Example],
    count: int,
    *,
    threads: int = 1,
    max_new_tokens: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, float]]:
    """`time_answers` of every model on `count` of the examples: medians of milliseconds, mean of
    tokens.

    Turns: every question is asked to every model before the next, so that all see the same machine.
    """
    times: dict[str, list[dict[str, float]]] = {name: [] for name in reasoners}
    with limited_threads(threads):
        for example in random.Random(0).sample(examples, count):
            for name, reasoner in reasoners.items():
                # One unmeasured call: the other models' weights have taken over the cache.
                times[name].append(
                    time_answers(
                        reasoner, [example.question], max_new_tokens=max_new_tokens, warmup=1
                    )
                )
            progress(1)
    return {
        name: {
            "ttft_ms": statistics.median(row["ttft_ms"] for row in rows),
            "answer_ms": statistics.median(row["answer_ms"] for row in rows),
            "tokens": statistics.fmean(row["tokens"] for row in rows),
        }
        for name, rows in times.items()
    }


def _tokens_to_answer(reasoner: Reasoner, answer: Answer) -> int:
    """Tokens of a text up to the first one of the answer's target, that one included."""
    if not answer.answer:
        return answer.num_tokens
    target = len(reasoner.encoder.answer_ids(answer.answer)) - (not answer.finished)
    return max(1, answer.num_tokens - target + 1)
