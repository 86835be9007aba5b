"""`rim ask` and `rim eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rim.cli import common


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
    device: common.DeviceOption = None,
) -> None:
    """Ask a trained model one question."""
    with common.clear_errors():
        from dataclasses import asdict

        reasoner = common.load(run, device)
        sampling = common.sampling(temperature, top_k, top_p, samples, seed)
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
            common.say(f"{block}{common.escape(shown)}{note}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    data: Annotated[Path, typer.Argument(help="Data file.")],
    format_: common.FormatOption = None,
    blocks: Annotated[
        int | None, typer.Option(min=0, help="Memory blocks; as in training if left out.")
    ] = None,
    limit: common.LimitOption = None,
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
    device: common.DeviceOption = None,
) -> None:
    """Score a trained model on a data file: final-block, per-block and any-block accuracy with
    intervals.
    """
    with common.clear_errors():
        from rim.callbacks import progress_bar
        from rim.config import ConfigError
        from rim.data.sources import open_file
        from rim.evaluation import write_evaluation
        from rim.report.tables import evaluation_table

        examples = open_file(data, format_, limit)
        sampling = common.sampling(temperature, 0, top_p, samples, seed)
        reasoner = common.load(run, device)
        count = reasoner.trained_blocks if blocks is None else blocks
        target = out or run / "evaluations" / f"{data.stem}-k{count}.json"
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} exists; give --overwrite or another --out")
        with progress_bar(common.console) as bar:
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
        common.console.print(evaluation_table(record))
        common.say(f"Result: {target}\nWrong answers: {wrong_file}")
