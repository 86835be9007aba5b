"""`rim bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rim.cli import common
from rim.cli.help import Positive, PositiveOrNone


def bench(
    *,
    model: str = "gpt2-small-size",
    methods: str | None = None,
    batch_sizes: str | None = None,
    question_tokens: str | None = None,
    blocks: str | None = None,
    full: bool = False,
    answer_tokens: Annotated[int, typer.Option(min=2)] = 8,
    step_tokens: Positive = 30,
    warmup: Positive = 2,
    repeats: Positive = 10,
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    threads: PositiveOrNone = None,
    out: Path | None = None,
    json_: bool = False,
) -> None:
    """Time the methods side by side: time to the first answer token (TTFT) and whole answer.

    Medians of repeats with quartiles, and ratios to the direct answer.
    Lengths are fixed, so neither weights nor words matter.

    Args:
        model (MODEL): gpt2-small-size (124 M), llama-3.2-1b-size, llama-3.2-3b-size, or sizes such
            as layers=6,width=256, all with random weights; or the folder of a trained run.
        methods (NAME,...): Or all; direct, rim, coconut and cot if left out.
        batch_sizes (N,...): Questions at a time; 1 if left out.
        question_tokens (N,...): Lengths; 128 if left out.
        blocks (K,...): Memory blocks; 8 if left out.
        full: Every method on the grid: batch 1, 8, 32, question 32, 128, 512, K 4, 8, 16. Meant
            for a GPU.
        answer_tokens (N): Length of every answer.
        step_tokens (N): Tokens that chain of thought writes before its answer.
        warmup (N): Repeats that do not count.
        repeats (N): Repeats that count.
        seed (N): Seed of questions and random weights.
        dtype (NAME): float32, bfloat16 or float16.
        threads (N): CPU threads; torch's choice if left out.
    """
    with common.clear_errors("Nothing was written."):
        from rim.cli.checks import check_device, check_target, comma_separated
        from rim.methods import METHODS
        from rim.study.bench.settings import FULL_GRID, BenchmarkSettings

        given = {
            "methods": list(METHODS) if methods == "all" else _words(methods),
            "batch_sizes": comma_separated("--batch-sizes", batch_sizes, least=1),
            "question_tokens": comma_separated("--question-tokens", question_tokens, least=1),
            "blocks": comma_separated("--blocks", blocks, least=1),
        }
        lengths = {"answer_tokens": answer_tokens, "step_tokens": step_tokens}
        counts = {"warmup": warmup, "repeats": repeats, "seed": seed}
        sizes = (FULL_GRID if full else {}) | {k: v for k, v in given.items() if v is not None}
        settings = common.validated(BenchmarkSettings, sizes | lengths | counts)
        check_device(device)
        check_target(out)
        own_sizes = _sizes(model)
        common.quiet_libraries()
        import torch

        from rim.report.latency import latency_tables
        from rim.results import environment, write_json
        from rim.study.bench.measure import run_benchmark
        from rim.study.bench.subject import scratch_subject, trained_subject

        if threads:
            torch.set_num_threads(threads)
        device = common.available_device(device)
        if own_sizes is None:
            subject = trained_subject(Path(model), device, dtype)
        else:
            subject = scratch_subject(model, own_sizes, device, dtype, seed)
        person = common.console_for(json_)
        common.say(_sentence(subject.description, settings), person)
        cells = len(settings.batch_sizes) * len(settings.question_tokens)
        total = cells * (warmup + repeats)
        with common.progress("timing", total, common.error_console) as advance:
            result = run_benchmark(subject, settings, lambda cell: advance(1, cell))
        for table in latency_tables(result):
            person.print(table)
        result["environment"] = environment()
        if out is not None:
            write_json(out, result)
            common.say(f"Result: {out}", person)
        if json_:
            common.print_json(result)


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _sizes(model: str) -> Any:
    """The sizes that `--model` means, a preset's or written out; None for a trained run.

    Raises:
        ConfigError: it is none of the three.
    """
    from rim.cli.checks import check_model
    from rim.config import ConfigError, ScratchConfig
    from rim.study.bench.settings import PRESETS

    if model in PRESETS:
        return PRESETS[model]
    if "=" in model:
        pairs = [word.partition("=") for word in _words(model) or []]
        sizes = {name.strip(): value.strip() for name, _, value in pairs}
        return common.validated(ScratchConfig, sizes, "--model ")
    if not Path(model).exists():
        raise ConfigError(
            f"--model {model!r} is neither a preset ({', '.join(PRESETS)}), nor sizes "
            "(layers=6,width=256), nor the folder of a trained run"
        )
    check_model(Path(model))
    return None


def _sentence(model: dict[str, Any], settings: Any) -> str:
    weights = "random weights" if model["weights"] == "random" else "trained"
    return (
        f"{model['name']}: {model['parameters'] / 1e6:.1f} M parameters, {weights}, "
        f"{model['dtype']} on {model['device']}. Every answer has {settings.answer_tokens} tokens, "
        f"chain of thought {settings.step_tokens} more before it. "
        f"Median (quartiles) of {settings.repeats} repeats."
    )
