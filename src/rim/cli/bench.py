"""`rim bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rim.cli import common


def bench(
    model: Annotated[
        str,
        typer.Option(
            help="gpt2-small-size (124 M) or sizes such as layers=6,width=256,heads=4, both with "
            "random weights; or the folder of a trained run."
        ),
    ] = "gpt2-small-size",
    methods: Annotated[
        str | None,
        typer.Option(help="Comma-separated, or all; direct,rim,coconut,cot if left out."),
    ] = None,
    batch_sizes: Annotated[str | None, typer.Option(help="Comma-separated; 1 if left out.")] = None,
    question_tokens: Annotated[
        str | None, typer.Option(help="Lengths, comma-separated; 128 if left out.")
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(help="Values of K, comma-separated; 8 if left out.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Every method on the grid: batch 1, 8, 32, question 32, 128, 512, K 4, 8, 16. "
            "Meant for a GPU.",
        ),
    ] = False,
    answer_tokens: Annotated[int, typer.Option(min=2, help="Length of every answer.")] = 8,
    step_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that chain of thought writes before its answer.")
    ] = 30,
    warmup: Annotated[int, typer.Option(min=1, help="Repeats that do not count.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats that count.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of questions and random weights.")] = 0,
    device: common.DeviceOption = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; torch's choice if left out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the result JSON here.")] = None,
) -> None:
    """Time the methods side by side: time to the first answer token (TTFT) and whole answer.

    Medians of repeats with quartiles, and ratios to the direct answer.
    Lengths are fixed, so neither weights nor words matter.
    The last line is one JSON object.
    """
    with common.clear_errors("Nothing was written."):
        common.quiet_libraries()
        import torch

        from rim.infer.reasoner import best_device
        from rim.methods import METHODS
        from rim.report.latency import latency_tables
        from rim.results import environment, write_json
        from rim.study.bench import FULL_GRID, BenchmarkSettings, run_benchmark
        from rim.train.callbacks import progress_bar

        given = {
            "methods": list(METHODS) if methods == "all" else _words(methods),
            "batch_sizes": _words(batch_sizes),
            "question_tokens": _words(question_tokens),
            "blocks": _words(blocks),
        }
        lengths = {"answer_tokens": answer_tokens, "step_tokens": step_tokens}
        counts = {"warmup": warmup, "repeats": repeats, "seed": seed}
        sizes = (FULL_GRID if full else {}) | {k: v for k, v in given.items() if v is not None}
        settings = common.validated(BenchmarkSettings, sizes | lengths | counts)
        if threads:
            torch.set_num_threads(threads)
        subject = _subject(model, device or best_device(), dtype, seed)
        common.say(_sentence(subject.description, settings))
        with progress_bar(common.error_console) as bar:
            cells = len(settings.batch_sizes) * len(settings.question_tokens)
            task = bar.add_task("timing", total=cells * (warmup + repeats), note="")
            result = run_benchmark(
                subject, settings, lambda cell: bar.update(task, advance=1, note=cell)
            )
        for table in latency_tables(result):
            common.console.print(table)
        result["environment"] = environment()
        if out is not None:
            write_json(out, result)
            common.say(f"Result: {out}")
        sys.stdout.flush()
        typer.echo(json.dumps(result))


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _subject(model: str, device: str, dtype: str, seed: int) -> Any:
    """The model that `--model` means: a preset, sizes, or a trained run."""
    from rim.config import ConfigError, ScratchConfig
    from rim.study.bench import PRESETS, scratch_subject, trained_subject

    if model in PRESETS:
        return scratch_subject(model, PRESETS[model], device, dtype, seed)
    if "=" in model:
        pairs = [word.partition("=") for word in _words(model) or []]
        sizes = {name.strip(): value.strip() for name, _, value in pairs}
        scratch = common.validated(ScratchConfig, sizes, "--model ")
        return scratch_subject(model, scratch, device, dtype, seed)
    if not Path(model).exists():
        raise ConfigError(
            f"--model {model!r} is neither a preset ({', '.join(PRESETS)}), nor sizes "
            "(layers=6,width=256), nor the folder of a trained run"
        )
    return trained_subject(Path(model), device, dtype)


def _sentence(model: dict[str, Any], settings: Any) -> str:
    weights = "random weights" if model["weights"] == "random" else "trained"
    return (
        f"{model['name']}: {model['parameters'] / 1e6:.1f} M parameters, {weights}, "
        f"{model['dtype']} on {model['device']}. Every answer has {settings.answer_tokens} tokens, "
        f"chain of thought {settings.step_tokens} more before it. "
        f"Median (quartiles) of {settings.repeats} repeats."
    )
