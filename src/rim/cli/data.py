"""`rim data`: look at a data set before training on it, or generate one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rim.cli import common

app = typer.Typer(
    help="Look at a data set before training on it, or generate one.", no_args_is_help=True
)


@app.command()
def stats(
    file: Annotated[Path, typer.Argument(help="Data file.")],
    format_: common.FormatOption = None,
    limit: common.LimitOption = None,
) -> None:
    """Count examples, steps and lengths."""
    with common.clear_errors():
        from rim.data.sources import describe, open_file
        from rim.report.tables import stats_table

        common.console.print(stats_table(file.name, describe(open_file(file, format_, limit))))


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="Data file.")],
    format_: common.FormatOption = None,
) -> None:
    """Check every record; list each problem with line and field. Exit code 1 if there is any."""
    with common.clear_errors():
        from rim.data.sources import check_file

        found = check_file(file, format_)
        for problem in found.problems[:50]:
            common.console.print(common.escape(problem), highlight=False, soft_wrap=True)
        if len(found.problems) > 50:
            common.say(f"... and {len(found.problems) - 50} more")
        if found.without_steps:
            common.say(
                f"note: no steps in {len(found.without_steps)} of {found.records} records: fine "
                "for evaluation, not for training on steps; the first is "
                + common.escape(found.without_steps[0])
            )
        if found.problems:
            common.console.print(
                f"[red]{len(found.problems)} problems in {found.records} records[/]"
            )
            raise typer.Exit(1)
        common.say(f"[green]{found.records} records, no problems[/]")


@app.command()
def generate(
    task: Annotated[
        str, typer.Argument(help="arithmetic, graph_search, multiplication or word_problems.")
    ],
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    num_examples: Annotated[int, typer.Option(min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="Another seed, other questions.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A knob, name=value; repeatable.")
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(help="A data file whose questions must not occur; repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a task's questions, steps and answers. Splits never share a question.

    Knobs of arithmetic: min_operations, max_operations, modulus.

    Knobs of graph_search: min_hops, max_hops, hop_mix (prosqa or even),
    min_concepts, max_concepts, edges_per_concept, min_entities, max_entities,
    vocabulary.

    Knobs of multiplication: first_digits, min_second_digits, max_second_digits.

    Knobs of word_problems: min_steps, max_steps, distractors, largest_number,
    operations (some of add, subtract, multiply, divide, together, written
    "--set operations=\\[add,divide]").
    """
    with common.clear_errors():
        from rim.config import ConfigError
        from rim.data.sources import load_examples, task_source, write_file

        if out.exists() and not overwrite:
            raise ConfigError(f"{out} exists; give --overwrite or another --out")
        knobs = {"num_examples": num_examples, "split": split, "seed": seed}
        source = task_source(task, knobs, tuple(set_ or ()), tuple(map(str, exclude or ())))
        with common.console.status(f"Generating {num_examples} questions"):
            examples = load_examples(source)
        write_file(out, examples)
        common.say(f"{len(examples)} {split} questions of {task}, seed {seed}: {out}")
