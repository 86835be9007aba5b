"""`rim data split-steps` and `rim data distill`: steps for data that has none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import typer

from rim.cli import common
from rim.cli.ask import key_of
from rim.cli.columns import reading
from rim.cli.help import Dtype, Natural, NotNegative, Positive, PositiveOrNone, refuse_unused

By = Literal["auto", "lines", "sentences", "marks", "equations"]


def split_steps(
    file: Path,
    *,
    out: Path,
    by: By = "auto",
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    limit: PositiveOrNone = None,
    overwrite: bool = False,
    json_: bool = False,
) -> None:
    """Part chains of thought in prose into steps, and keep those that end with the given answer.

    The chain of thought is the steps column (--column steps=NAME), or stands in the answer before
    "####" as in GSM8K. Rows that are not kept go to OUT-failed.jsonl, each with its reason.

    Args:
        out (FILE): JSONL file to write.
        by (NAME): What parts steps. marks: "Step 1:", "1." or list marks; lines; sentences;
            equations: the calculator's <<48/2=24>>, or every "48 / 2 = 24". auto: marks if there
            are two, lines if there are two, sentences else.
        overwrite: Replace the file.
    """
    with common.clear_errors():
        from rim.cli.checks import check_target
        from rim.prepare.split_file import failed_file, split_file

        names = reading(column, separator)
        for target in (out, failed_file(out)):
            check_target(target, overwrite=overwrite)
        person = common.console_for(json_)
        with person.status(f"Splitting {file.name}"):
            summary = split_file(file, out, file_format=format_, reading=names, by=by, limit=limit)
        _tell(file.name, summary, person, ("rows", "kept", "steps_median", "steps_longest"))
        if json_:
            common.print_json(summary)
        if not summary["kept"]:
            raise typer.Exit(1)


def distill(
    file: Path,
    *,
    out: Path,
    server: str | None = None,
    model: str | None = None,
    teacher: str | None = None,
    api_key_env: str | None = None,
    samples: Positive = 4,
    keep: Literal["shortest", "first"] = "shortest",
    temperature: NotNegative = 0.7,
    top_p: float = 1.0,
    seed: int = 0,
    max_new_tokens: Positive = 512,
    prompt: Path | None = None,
    by: By = "auto",
    price: str | None = None,
    yes: bool = False,
    resume: bool = False,
    redo: bool = False,
    concurrency: Positive = 8,
    retries: Natural = 4,
    timeout: Positive = 120,
    batch_size: Positive = 16,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    limit: PositiveOrNone = None,
    overwrite: bool = False,
    device: str | None = None,
    dtype: Dtype = None,
    json_: bool = False,
) -> None:
    """Have a teacher write the steps of questions whose answers you have. Of several samples only
    those that reach the right answer count, and one of them is kept.

    The teacher is behind --server, any OpenAI-compatible address, or a model here, --teacher. What
    it will cost is said first, and asked for. A job that was stopped in any way continues with
    --resume. What the teacher said stays in OUT.distill/; questions without success go to
    OUT-failed.jsonl, each with its reason.

    Args:
        out (FILE): JSONL file to write.
        server (URL): Address of a server of chat completions.
        model (NAME): Model of a server that has several.
        teacher (MODEL): Instead of a server: folder, GGUF file, package:NAME, hub id, or a run that
            writes its steps.
        api_key_env (VARIABLE): Environment variable with the server's key.
        samples (N): Chains of thought a question.
        keep (NAME): shortest: all samples are asked for, and of the right ones that with the fewest
            steps is kept. first: nothing more is asked once one is right.
        temperature (X): Of sampling; 0 with one sample only.
        max_new_tokens (N): Longest chain of thought, in tokens.
        prompt (FILE): Text with {question} in it, in place of the built-in prompt.
        by (NAME): What parts steps: auto, lines, sentences, marks or equations, as in split-steps.
        price (X,Y): Price of a million tokens in and out, for the estimate; one number is both.
        yes: Do not ask whether to begin.
        resume: Continue what was begun, or begin it.
        redo: Have steps written for questions that have some, too.
        concurrency (N): Questions at a server at a time.
        retries (N): How often a question is sent to a server again, after a growing pause.
        timeout (S): Seconds without a sign of life after which a server is asked again.
        batch_size (N): Questions at a time, with --teacher.
        format_ (NAME): Format of FILE, as in `rim data stats`; told by the content if left out.
        overwrite: Replace the file.
    """
    with common.clear_errors("The same command with --resume continues."):
        from rim.cli.checks import check_target
        from rim.config import ConfigError
        from rim.data.files import read_text
        from rim.data.sources import open_file
        from rim.prepare.distill import Work, distill_file, estimate, samples_file
        from rim.prepare.split_file import failed_file, refuse_input
        from rim.prepare.teachers import PROMPT, TeacherSettings

        if (server is None) == (teacher is None):
            raise ConfigError("give a teacher: --server URL, or --teacher MODEL for a model here")
        if server is not None:
            refuse_unused("only with --teacher", "device", "dtype", "batch_size")
        else:
            own = ("model", "api_key_env", "concurrency", "retries", "timeout")
            refuse_unused("only with --server", *own)
        prices = _prices(price)
        common.sampling(temperature, 0, top_p, 1, seed)
        asking = TeacherSettings(
            samples=samples,
            stop_at_first=keep == "first",
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            prompt=PROMPT if prompt is None else read_text(prompt).strip(),
        )
        names = reading(column, separator)
        refuse_input(file, out)
        continues = resume and samples_file(out).exists()  # else the file is not this job's
        for target in (out, failed_file(out)):
            check_target(target, overwrite=overwrite or continues)
        if samples_file(out).exists() and not resume:
            raise ConfigError(
                f"{samples_file(out).parent} has what a teacher said earlier; continue it with "
                "--resume, or delete it"
            )
        work = Work.of(open_file(file, format_, limit, names), redo)
        person = common.console_for(json_)
        cost, earlier = estimate(work, asking, out, prices)
        if cost.questions:
            for line in cost.lines(earlier):
                common.say(line, person)
            _confirm(yes)
        if server is not None:
            from rim.deploy.serve.client import Client
            from rim.prepare.teachers import ServerTeacher

            key = key_of(api_key_env)
            client = Client(server, model=model, api_key=key, retries=retries, timeout=timeout)
            engine: Any = ServerTeacher(client, asking, work.golds, concurrency=concurrency, by=by)
        else:
            assert teacher is not None
            where = (device, dtype)
            options = {"batch_size": batch_size, "by": by}
            engine = _local(teacher, asking, work, where, options, prompt is not None)
        with common.progress("distilling", len(work.asked), person) as advance:
            summary = distill_file(
                work, out, engine, keep=keep, by=by, resume=resume, progress=advance
            )
        shown = ("rows", "asked", "samples", "right", "kept", "steps_median", "steps_longest")
        _tell(file.name, summary, person, shown)
        if json_:
            common.print_json(summary)
        if not summary["kept"]:
            raise typer.Exit(1)


def _local(
    teacher: str,
    asking: Any,
    work: Any,
    where: tuple[str | None, Any],
    options: dict[str, Any],
    prompted: bool,
) -> Any:
    from rim.cli.checks import check_device, check_model
    from rim.cli.hub import check_base
    from rim.config import ConfigError
    from rim.prepare.teachers import LocalTeacher, hash_of, is_run, load_teacher

    check_device(where[0])
    if is_run(teacher):
        if prompted:
            raise ConfigError(f"--prompt: {teacher} is a run, which has the prompt of its training")
        check_model(Path(teacher))
    else:
        check_base(teacher)
    common.quiet_libraries()
    device = common.available_device(where[0])
    reasoner = load_teacher(teacher, asking.prompt, device=device, dtype=where[1])
    options = options | {"weights": hash_of(teacher), "own": is_run(teacher)}
    return LocalTeacher(reasoner, teacher, asking, work.golds, **options)


def _prices(text: str | None) -> tuple[float, float] | None:
    """`0.15,0.60`, or one price for both."""
    from rim.config import ConfigError

    if text is None:
        return None
    try:
        prices = [float(piece) for piece in text.split(",")]
    except ValueError:
        prices = []
    if len(prices) not in (1, 2) or not all(0 <= price < 1e6 for price in prices):
        raise ConfigError(f"--price takes X,Y, as 0.15,0.60, got {text[:40]!r}")
    return prices[0], prices[-1]


def _confirm(yes: bool) -> None:
    from rim.config import ConfigError

    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to be asked whether to begin: add --yes")
    if not typer.confirm("Begin?", err=True):
        raise typer.Exit(0)


def _tell(name: str, summary: dict[str, Any], person: Any, shown: tuple[str, ...]) -> None:
    from rim.report.tables import stats_table

    rows = {key: summary[key] for key in shown if summary[key] is not None}
    rows |= {f"left out, {reason}": count for reason, count in summary["reasons"].items()}
    person.print(stats_table(common.printable(name, keep=""), common.printable_tree(rows)))
    if summary["kept"]:
        longest = summary["steps_longest"]
        common.say(
            f"Steps: {summary['out']}; the longest, {longest} steps, are at "
            f"{summary['longest_at']}: {longest + 1} blocks hold them and the answer",
            person,
        )
    if summary["failed_file"]:
        common.say(f"Left out, with reasons: {summary['failed_file']}", person)
