"""`rim data`: look at a data set before training on it, convert it, have its steps written, or
generate one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import typer

from rim.cli import common, data_steps
from rim.cli.columns import reading
from rim.cli.help import PlainGroup, Positive, PositiveOrNone, add_command

#: A column of prose is read as one step: nothing is wrong with the file, and it is not meant.
_IN_ONE_STEP = (
    "note: most solutions are one step of several sentences, so a block would have to say all of "
    "it. `rim data split-steps` parts prose into steps"
)


def stats(
    file: Path,
    *,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    limit: PositiveOrNone = None,
    json_: bool = False,
) -> None:
    """Count examples, steps and lengths."""
    with common.clear_errors():
        from rim.data.sources import describe, open_file
        from rim.report.tables import stats_table

        counted = describe(open_file(file, format_, limit, reading(column, separator)))
        if json_:
            common.print_json({"file": file.name, **counted})
        else:
            common.console.print(stats_table(common.printable(file.name, keep=""), counted))


def validate(
    file: Path,
    *,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    json_: bool = False,
) -> None:
    """Check every record; list each problem with line and field. Exit code 1 if there is any."""
    with common.clear_errors():
        from rim.data.sources import check_file

        found = check_file(file, format_, reading(column, separator))
        if json_:
            common.print_json({"file": file.name, **vars(found)})
        else:
            _show_findings(found)
        if found.problems:
            raise typer.Exit(1)


def _show_findings(found: Any) -> None:
    told = _alike(found.problems)
    for problem in told[:50]:
        common.say(problem)
    if len(told) > 50:
        common.say(f"... and {len(told) - 50} more")
    if len(told) == 1 and "field 'answer' is missing" in told[0]:
        common.say("note: `rim answer` takes such a file, with questions alone")
    if found.without_steps:
        common.say(
            f"note: no steps in {len(found.without_steps)} of {found.records} records: fine for "
            f"evaluation, not for training on steps; the first is {found.without_steps[0]}"
        )
    if found.in_one_step:
        common.say(_IN_ONE_STEP)
    if found.problems:
        many = "problem" if len(found.problems) == 1 else "problems"
        common.say(f"{len(found.problems)} {many} in {found.records} records", style="red")
    else:
        common.say(f"{found.records} records, no problems", style="green")


def _alike(problems: Sequence[str]) -> list[str]:
    """Problems, those that differ in their line alone as one."""
    lines: dict[str, list[str]] = {}
    for problem in problems:
        where, _, what = problem.partition(": ")
        lines.setdefault(what, []).append(where)
    return [
        f"{where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {what}"
        for what, where in lines.items()
    ]


def convert(
    file: Path,
    *,
    out: Path,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    limit: PositiveOrNone = None,
    overwrite: bool = False,
    json_: bool = False,
) -> None:
    """Write any data file, or a set of the hub, as a JSONL with question, steps and answer.

    Args:
        out (FILE): JSONL file to write.
        overwrite: Replace the file.
    """
    with common.clear_errors():
        from rim.cli.checks import check_target
        from rim.data import sources

        check_target(out, overwrite=overwrite)
        read, person = reading(column, separator), common.console_for(json_)
        examples = sources.open_file(file, format_, limit, read)
        with_steps = sum(bool(example.steps) for example in examples)
        # Before the file is written, which may be the same one.
        unread = [] if with_steps else sources.unread_columns(file, format_, read)
        sources.write_file(out, examples)
        common.say(f"{len(examples)} examples, {with_steps} with steps: {out}", person)
        if sources.solutions_in_one_step(examples):
            common.say(_IN_ONE_STEP, person)
        if unread:
            names = ", ".join(map(repr, unread))
            common.say(
                f"note: nothing was read of {names}; --column steps=NAME names the one with steps",
                person,
            )
        if json_:
            counts = {"examples": len(examples), "with_steps": with_steps}
            common.print_json({"out": out, **counts, "data_hash": sources.data_hash(examples)})


def generate(
    task: str,
    *,
    out: Path,
    split: Literal["train", "validation", "test"] = "train",
    num_examples: Positive = 2000,
    seed: int = 0,
    set_: list[str] | None = None,
    exclude: list[Path] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a task's questions, steps and answers. Splits never share a question.

    Knobs of arithmetic: min_operations, max_operations, modulus, start.

    Knobs of brackets: min_brackets, max_brackets, modulus, signs
    ("--set signs=\\[+,-]"), combine (sum or largest).

    Knobs of graph_search: min_hops, max_hops, hop_mix (prosqa or even),
    min_concepts, max_concepts, edges_per_concept, min_entities, max_entities,
    vocabulary.

    Knobs of multiplication: first_digits, min_second_digits, max_second_digits.

    Knobs of pair_matching: min_items, max_items, digits, modulus, ask (any,
    count or which), max_pairs, target (zero, first or last), steps (counts or partners).

    Knobs of pointers: nodes, min_hops, max_hops, start.

    Knobs of prefix_counts: chunk, min_chunks, max_chunks, modulus.

    Knobs of relations: min_hops, max_hops, min_people, max_people, relations,
    shape (permutation or ring), distractors, names (familiar or new), pool, facts and
    question (plain, paraphrased or mixed), step (fact or name).

    Knobs of word_problems: min_steps, max_steps, distractors, largest_number,
    operations (some of add, subtract, multiply, divide, together, written
    "--set operations=\\[add,divide]").

    Args:
        task (TASK): arithmetic, brackets, graph_search, multiplication, pair_matching, pointers,
            prefix_counts, relations or word_problems.
        out (FILE): JSONL file to write.
        split (NAME): train, validation or test.
        num_examples (N): Questions to write.
        seed (N): Another seed, other questions.
        set_ (KNOB=VALUE): Change a knob; repeatable.
        exclude (FILE): A data file whose questions must not occur; repeatable.
        overwrite: Replace the file.
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
        common.say(f"{len(examples)} {split} questions of {task}, seed {seed}: {out}")


app = typer.Typer(
    help="Look at a data set, convert it, have its steps written, or generate one.",
    no_args_is_help=True,
    cls=PlainGroup,
)
for _command in (stats, validate, convert, data_steps.split_steps, data_steps.distill, generate):
    add_command(app, _command, _command.__name__.replace("_", "-"))
