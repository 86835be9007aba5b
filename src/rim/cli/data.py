"""`rim data`: look at a data set before training on it, or generate one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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
    json_: common.JsonOption = False,
) -> None:
    """Check every record; list each problem with line and field. Exit code 1 if there is any."""
    with common.clear_errors():
        from rim.data.sources import check_file

        found = check_file(file, format_)
        if json_:
            common.print_json(
                {
                    "file": file.name,
                    "records": found.records,
                    "problems": found.problems,
                    "without_steps": found.without_steps,
                }
            )
        else:
            _show_findings(found)
        if found.problems:
            raise typer.Exit(1)


def _show_findings(found: Any) -> None:
    for problem in found.problems[:50]:
        common.say(common.escape(problem))
    if len(found.problems) > 50:
        common.say(f"... and {len(found.problems) - 50} more")
    if found.without_steps:
        common.say(
            f"note: no steps in {len(found.without_steps)} of {found.records} records: fine for "
            "evaluation, not for training on steps; the first is "
            + common.escape(found.without_steps[0])
        )
    if found.problems:
        common.say(f"[red]{len(found.problems)} problems in {found.records} records[/]")
    else:
        common.say(f"[green]{found.records} records, no problems[/]")


@app.command(cls=PlainCommand)
def generate(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="arithmetic, graph_search, multiplication, relations or word_problems.",
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

    Knobs of arithmetic: min_operations, max_operations, modulus, start.

    Knobs of graph_search: min_hops, max_hops, hop_mix (prosqa or even),
    min_concepts, max_concepts, edges_per_concept, min_entities, max_entities,
    vocabulary.

    Knobs of multiplication: first_digits, min_second_digits, max_second_digits.

    Knobs of relations: min_hops, max_hops, min_people, max_people, relations,
    shape (permutation or ring), distractors, names (familiar or new), facts and
    question (plain, paraphrased or mixed), step (fact or name).

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
