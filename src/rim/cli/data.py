"""`rim data`: look at a data set before training on it, or generate one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rim.cli import common
from rim.cli.help import PlainCommand, PlainGroup

app = typer.Typer(
    help="Look at a data set before training on it, or generate one.",
    no_args_is_help=True,
    cls=PlainGroup,
)


@app.command(cls=PlainCommand)
def stats(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Data file.")],
    format_: common.FormatOption = None,
    limit: common.LimitOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Count examples, steps and lengths."""
    with common.clear_errors():
        from rim.data.sources import describe, open_file
        from rim.report.tables import stats_table

        counted = describe(open_file(file, format_, limit))
        if json_:
            common.print_json({"file": file.name, **counted})
        else:
            common.console.print(stats_table(common.printable(file.name, keep=""), counted))


@app.command(cls=PlainCommand)
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Data file.")],
    format_: common.FormatOption = None,
    allow_empty_steps: Annotated[
        bool, typer.Option("--allow-empty-steps", help="For data that is only evaluated on.")
    ] = False,
    json_: common.JsonOption = False,
) -> None:
    """Check every record; list each problem with line and field. Exit code 1 if there is any."""
    with common.clear_errors():
        from rim.data.sources import find_problems

        count, problems = find_problems(file, format_, allow_empty_steps)
        if json_:
            common.print_json({"file": file.name, "records": count, "problems": problems})
        else:
            for problem in problems[:50]:
                common.say(common.escape(problem))
            if len(problems) > 50:
                common.say(f"... and {len(problems) - 50} more")
            if problems:
                common.say(f"[red]{len(problems)} problems in {count} records[/]")
            else:
                common.say(f"[green]{count} records, no problems[/]")
        if problems:
            raise typer.Exit(1)


@app.command(cls=PlainCommand)
def generate(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", help="arithmetic, graph_search, multiplication or word_problems."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="JSONL file to write.")],
    split: Annotated[
        Literal["train", "validation", "test"],
        typer.Option(metavar="NAME", help="train, validation or test."),
    ] = "train",
    num_examples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Questions to write.")
    ] = 2000,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed, other questions.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KNOB=VALUE", help="Change a knob; repeatable."),
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="A data file whose questions must not occur; repeatable."
        ),
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
        from rim.cli.checks import check_target
        from rim.data.sources import load_examples, task_source, write_file

        check_target(out, overwrite=overwrite)
        knobs = {"num_examples": num_examples, "split": split, "seed": seed}
        source = task_source(task, knobs, tuple(set_ or ()), tuple(map(str, exclude or ())))
        with common.console.status(f"Generating {num_examples} questions"):
            examples = load_examples(source)
        write_file(out, examples)
        written = f"{len(examples)} {split} questions of {task}, seed {seed}: {out}"
        common.say(common.escape(written))
