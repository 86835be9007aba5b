"""The command line: parses, calls the library, prints. Mistakes end in one sentence and exit code
2.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    name="rim",
    help="Reasoning in Memory: language models that think in memory blocks, not in written words.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Look at a data set before training on it.", no_args_is_help=True)
app.add_typer(data_app, name="data")

console = Console()
error_console = Console(stderr=True)

FORMATS = "jsonl, gsm8k, gsm8k_sentences, gsm8k_aug, gsm_hard, svamp"
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help=f"One of {FORMATS}; guessed from the first record if left out."),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Read only so many examples.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps ...; the best there is if left out.")
]


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn the library's own errors into one line; anything else is a bug: its traceback stays."""
    from rim.config import ConfigError
    from rim.data.examples import DataError

    try:
        yield
    except (ConfigError, DataError) as error:
        error_console.print(
            f"[bold red]Error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        error_console.print("[bold]Interrupted.[/] A training run continues with --resume.")
        raise typer.Exit(130) from None
    except RuntimeError as error:
        if type(error).__name__ != "TrainingDivergedError":
            raise
        error_console.print(
            f"[bold red]Training stopped:[/] {_escape(str(error))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(3) from None


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _quiet_libraries() -> None:
    """Libraries' progress bars and advice would drown our own lines; errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def _load(run: Path, device: str | None) -> Any:
    _quiet_libraries()
    from rim.reasoner import best_device, load

    return load(run, device=device or best_device())


@app.command()
def train(
    recipe: Annotated[
        Path, typer.Argument(help="Recipe YAML, for example recipes/gsm8k_tiny.yaml.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting: seed=1, or stages.grounding.max_steps=100. Repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
) -> None:
    """Train a model as a recipe says, stage by stage, into a run folder."""
    with _clear_errors():
        _quiet_libraries()
        from rim.curriculum import train as run_training
        from rim.recipes import load_recipe

        run = run_training(load_recipe(recipe, tuple(set_ or ())), resume=resume, console=console)
        console.print(
            f'Ask it:      rim ask {run.path} "your question"', highlight=False, soft_wrap=True
        )
        console.print(f"Evaluate it: rim eval {run.path} DATA", highlight=False, soft_wrap=True)


@app.command()
def ask(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    blocks: Annotated[
        int | None, typer.Option(min=0, help="Memory blocks; as in training if left out.")
    ] = None,
    all_blocks: Annotated[
        bool, typer.Option("--all-blocks", help="Show the answer after every block.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(min=0.000001, max=1)] = 1.0,
    samples: Annotated[int, typer.Option(min=1, help="Sampled answers (needs a temperature).")] = 1,
    seed: Annotated[int, typer.Option()] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON line instead.")] = False,
    device: DeviceOption = None,
) -> None:
    """Ask a trained model one question."""
    with _clear_errors():
        from dataclasses import asdict

        reasoner = _load(run, device)
        sampling = _sampling(temperature, top_k, top_p, samples, seed)
        if not question.strip():
            raise typer.BadParameter("the question is empty")
        answers = reasoner.ask_many(
            [question],
            blocks=blocks,
            after="all" if all_blocks else "final",
            max_new_tokens=max_new_tokens,
            sampling=sampling,
        )[0]
        if json_:
            typer.echo(json.dumps([asdict(answer) for answer in answers], ensure_ascii=False))
            return
        for answer in answers:
            block = f"block {answer.after_block}: " if all_blocks else ""
            note = "" if answer.finished else "  (cut off by --max-new-tokens)"
            shown = (
                answer.answer
                if answer.text.strip() == answer.answer
                else f"{answer.answer}    {answer.text!r}"
            )
            console.print(f"{block}{_escape(shown)}{note}", highlight=False, soft_wrap=True)


def _sampling(temperature: float, top_k: int, top_p: float, samples: int, seed: int) -> Any:
    from rim.config import ConfigError
    from rim.sampling import Sampling

    try:
        return Sampling(temperature, top_k, top_p, samples, seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None


@app.command(name="eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    data: Annotated[Path, typer.Argument(help="Data file.")],
    format_: FormatOption = None,
    blocks: Annotated[
        int | None, typer.Option(min=0, help="Memory blocks; as in training if left out.")
    ] = None,
    limit: LimitOption = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Samples per question for pass@k (needs a temperature).")
    ] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.000001, max=1)] = 1.0,
    seed: Annotated[int, typer.Option()] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    out: Annotated[
        Path | None, typer.Option(help="Result JSON; RUN/evaluations/NAME-kK.json if left out.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier result.")
    ] = False,
    device: DeviceOption = None,
) -> None:
    """Score a trained model on a data file: final-block, per-block and any-block accuracy with
    intervals.
    """
    with _clear_errors():
        from rim.callbacks import progress_bar
        from rim.config import ConfigError
        from rim.data.sources import open_file
        from rim.evaluation import write_evaluation
        from rim.report.tables import evaluation_table

        examples = open_file(data, format_, limit)
        sampling = _sampling(temperature, 0, top_p, samples, seed)
        reasoner = _load(run, device)
        count = reasoner.trained_blocks if blocks is None else blocks
        target = out or run / "evaluations" / f"{data.stem}-k{count}.json"
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} exists; give --overwrite or another --out")
        with progress_bar(console) as bar:
            task = bar.add_task("answering", total=len(examples), note="")
            result = reasoner.evaluate(
                examples,
                blocks=count,
                sampling=sampling,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                progress=lambda done: bar.advance(task, done),
            )
        settings = {"blocks": count, "max_new_tokens": max_new_tokens, "sampling": vars(sampling)}
        record, wrong_file = write_evaluation(result, target, run, data.name, examples, settings)
        console.print(evaluation_table(record))
        console.print(
            f"Result: {target}\nWrong answers: {wrong_file}", highlight=False, soft_wrap=True
        )


@data_app.command()
def stats(
    file: Annotated[Path, typer.Argument(help="Data file.")],
    format_: FormatOption = None,
    limit: LimitOption = None,
) -> None:
    """Count examples, steps and lengths."""
    with _clear_errors():
        from rim.data.sources import describe, open_file
        from rim.report.tables import stats_table

        console.print(stats_table(file.name, describe(open_file(file, format_, limit))))


@data_app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="Data file.")],
    format_: FormatOption = None,
    allow_empty_steps: Annotated[
        bool, typer.Option("--allow-empty-steps", help="For data that is only evaluated on.")
    ] = False,
) -> None:
    """Check every record; list each problem with line and field. Exit code 1 if there is any."""
    with _clear_errors():
        from rim.data.sources import find_problems

        count, problems = find_problems(file, format_, allow_empty_steps)
        for problem in problems[:50]:
            console.print(_escape(problem), highlight=False, soft_wrap=True)
        if len(problems) > 50:
            console.print(f"... and {len(problems) - 50} more")
        if problems:
            console.print(f"[red]{len(problems)} problems in {count} records[/]", highlight=False)
            raise typer.Exit(1)
        console.print(f"[green]{count} records, no problems[/]", highlight=False)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(min=0, help="Seed of data order, weights and training.")] = 0,
    runs_dir: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(help="Also write the result JSON here.")] = None,
) -> None:
    """Train a tiny model three ways on a built-in task and compare: direct, chain of thought,
    memory blocks.
    """
    with _clear_errors():
        _quiet_libraries()
        from rim.demo import run_demo

        result = run_demo(seed, runs_dir, console, out)
        sys.stdout.flush()
        typer.echo(json.dumps(result))


@app.command()
def version() -> None:
    """Print the version."""
    from rim import __version__

    typer.echo(__version__)


if __name__ == "__main__":
    app()
