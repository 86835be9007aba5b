"""`rim ask` and `rim eval`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rim.cli import common, selecting
from rim.cli.columns import reading
from rim.cli.help import Dtype, Natural, NotNegative, Positive, PositiveOrNone, refuse_unused


def ask(
    words: list[str],
    *,
    server: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    forbid: str | None = None,
    blocks: str | None = None,
    all_blocks: bool = False,
    max_new_tokens: Positive = 64,
    temperature: NotNegative = 0.0,
    top_k: Natural = 0,
    top_p: float = 1.0,
    samples: Positive = 1,
    seed: int = 0,
    select: str | None = None,
    fallback: Path | None = None,
    json_: bool = False,
    device: str | None = None,
    dtype: Dtype = None,
) -> None:
    """Ask a trained model one question: a run (`rim ask RUN QUESTION`), or a server that is already
    running (`rim ask --server URL QUESTION`).

    Args:
        words ([RUN] QUESTION): Run folder or model folder, and the question; with --server the
            question alone.
        server (URL): Ask a running server (`rim serve`) instead of a run.
        model (NAME): Model of a server that has several.
        api_key_env (VARIABLE): Environment variable with the server's key; none if left out.
        all_blocks: Show the answer after every block.
        top_k (N): Sample from so many tokens; 0 is off.
        samples (N): Sampled answers (needs a temperature).
    """
    with common.clear_errors():
        from rim.cli.checks import block_counts, check_model
        from rim.config import ConfigError
        from rim.models.folder import read_prompt_format

        counts = block_counts(blocks)
        if server is not None:
            refused = {
                "--all-blocks (ask for --blocks 1,2,3 instead)": all_blocks,
                "--top-k": top_k != 0,
                "--samples": samples != 1,
                "--device": device is not None,
                "--dtype": dtype is not None,
                "--select": select is not None,
            }
            for option, given in refused.items():
                if given:
                    raise ConfigError(f"a server does not take {option}")
        else:
            refuse_unused("only with --server", "model", "api_key_env", "forbid")
        run, question = _run_and_question(words, server)
        if all_blocks and len(counts) > 1:
            raise ConfigError("--all-blocks goes with one number of --blocks")
        if fallback is not None and select is None:
            raise ConfigError("--fallback goes with --select")
        if select is not None:
            refuse_unused("not with --select", "seed")
            sampled = samples > 1 or temperature > 0 or top_k > 0 or top_p < 1
            if all_blocks or len(counts) > 1 or sampled:
                raise ConfigError(
                    "--select goes with one number of --blocks and greedy answers, not with "
                    "--all-blocks"
                )
            record = selecting.ask_run(
                run, question, select, counts[0], fallback, max_new_tokens, device, dtype
            )
            common.print_json(record) if json_ else selecting.say_selected(record)
            return
        if server is not None:
            from rim.deploy.serve.client import Client

            key, never = key_of(api_key_env), token_ids(forbid)
            client = Client(server, model=model, api_key=key, forbidden_ids=never)
            options = {"temperature": temperature, "top_p": top_p, "seed": seed}
            options["max_new_tokens"] = max_new_tokens
            rows = _ask_server(client, question, counts, options)
        else:
            options = {"after": "all" if all_blocks else "final", "max_new_tokens": max_new_tokens}
            options["sampling"] = common.sampling(temperature, top_k, top_p, samples, seed)
            _tell_of_more(counts, read_prompt_format(check_model(run, counts, device)))
            reasoner = common.load(run, device, dtype)
            rows = [
                _row(answer)
                for count in counts
                for answer in reasoner.ask_many([question], blocks=count, **options)[0]
            ]
        _show(rows, json_, all_blocks, len(counts) > 1)


def _tell_of_more(counts: Sequence[int | None], trained: Any) -> None:
    """More blocks than in training are answered, and seldom well."""
    most = max((count or 0 for count in counts), default=0)
    if most > trained.trained_blocks:
        common.say(
            f"Note: {most} blocks, and the model was trained with {trained.trained_blocks} at most",
            common.error_console,
        )


def _ask_server(
    client: Any, question: str, counts: list[int | None], options: dict[str, Any]
) -> list[dict[str, Any]]:
    """A server's answer for each number of blocks."""
    if len(counts) > 1:  # a server's first answer is slow: it is not the one to compare
        client.ask(question, blocks=counts[0], max_new_tokens=1)
    return [vars(client.ask(question, blocks=count, **options)) for count in counts]


def _run_and_question(words: list[str], server: str | None) -> tuple[Path, str]:
    """
    Raises:
        ConfigError: a word too many or too few, or an empty question.
    """
    from rim.config import ConfigError

    if server is not None and len(words) != 1:
        raise ConfigError("with --server give the question alone (quoted); the server has a model")
    if server is None and len(words) != 2:
        raise ConfigError(
            'give a run and a question, `rim ask RUN "QUESTION"`, or a server and a question, '
            '`rim ask --server URL "QUESTION"`'
        )
    question = words[-1]
    if not question.strip():
        raise ConfigError("the question is empty")
    return Path(words[0]), question


def key_of(variable: str | None) -> str | None:
    """
    Raises:
        ConfigError: the variable is not set.
    """
    from rim.config import ConfigError

    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"--api-key-env: there is nothing in the variable {variable}")
    return os.environ[variable]


def token_ids(text: str | None) -> tuple[int, ...]:
    """
    Raises:
        ConfigError: not numbers of tokens.
    """
    from rim.config import ConfigError

    pieces = [] if text is None else [piece.strip() for piece in text.split(",")]
    if not all(piece.isascii() and piece.isdigit() and len(piece) < 10 for piece in pieces):
        raise ConfigError(f"--forbid takes numbers of tokens, as 50257,50258, got {text!r}")
    return tuple(map(int, pieces))


def _row(answer: Any) -> dict[str, Any]:
    """An answer of a run, named as a server's: the blocks before it are those it was asked with."""
    fields = dict(vars(answer))
    return {"blocks": fields.pop("after_block"), **fields}


def _show(rows: list[dict[str, Any]], as_json: bool, all_blocks: bool, several: bool) -> None:
    """Print answers of a run or of a server, one a line."""
    if as_json:
        common.print_json(rows)
        return
    for row in rows:
        count, answer, text = row["blocks"], row["answer"], row["text"]
        label = f"block {count}: " if all_blocks else f"{count} blocks: " if several else ""
        note = "" if row["finished"] else "  (cut off by --max-new-tokens)"
        if "first_ms" in row:
            note += f"    [first text {row['first_ms']:.0f} ms, all {row['answer_ms']:.0f} ms]"
        shown = answer if text.strip() == answer else f"{answer}    {text!r}"
        shown = shown if text.strip() else "(an empty answer)"
        # One line an answer: its own line breaks are shown, not made.
        common.say(label + common.printable(shown, keep="") + note)


def evaluate(
    run: Path,
    data: Path,
    *,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    blocks: str | None = None,
    limit: PositiveOrNone = None,
    samples: Positive = 1,
    temperature: NotNegative = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: Positive = 64,
    max_new_tokens: Positive = 64,
    out: Path | None = None,
    overwrite: bool = False,
    select: str | None = None,
    fallback: Path | None = None,
    calibrate: bool = False,
    target: float = 0.95,
    json_: bool = False,
    device: str | None = None,
    dtype: Dtype = None,
) -> None:
    """Score a trained model on a data file: final-block, per-block and any-block accuracy with
    intervals. Several numbers of blocks give one table with a row for each.

    Args:
        calibrate: With --select: find thresholds on this data (validation, not test questions) and
            keep them with the run.
        target (X): With --calibrate: how often a given answer is right.
        samples (N): Samples per question for pass@k (needs a temperature).
        out (FILE): Result JSON; DATA-kK.json in RUN/evaluations if left out. Several numbers of
            blocks make several files, FILE-kK.json.
        overwrite: Replace an earlier result.
    """
    with common.clear_errors():
        from rim.cli.checks import block_counts, check_model, check_target, targets
        from rim.config import ConfigError
        from rim.data.sources import data_hash, open_file
        from rim.evaluate.selectors import check_calibrated
        from rim.models.folder import read_prompt_format

        asked = block_counts(blocks)
        sampling = common.sampling(temperature, 0, top_p, samples, seed)
        examples = open_file(data, format_, limit, reading(column, separator))
        prompt_format = read_prompt_format(check_model(run, asked, device))
        _tell_of_more(asked, prompt_format)
        trained = prompt_format.trained_blocks
        counts = [trained if count is None else count for count in asked]
        names = selecting.check_select(select, run, min(counts))
        if (fallback is not None or calibrate) and not names:
            raise ConfigError("--fallback and --calibrate go with --select")
        if not calibrate:
            refuse_unused("goes with --calibrate", "target")
        elif temperature > 0:
            raise ConfigError("--calibrate finds thresholds for greedy answers; no --temperature")
        if "probe" in names:
            selecting.trust_probe(run, examples)
        if not 0 <= target <= 1:
            raise ConfigError(f"--target is a share between 0 and 1, got {target}")
        if calibrate and len(counts) > 1:
            raise ConfigError("--calibrate goes with one number of --blocks")
        if fallback is not None:
            if not calibrate:
                for count in counts:
                    check_calibrated(names, run, count)
            check_model(fallback, (), device)
        files = targets(out, counts) or [
            run / "evaluations" / f"{data.stem}-k{count}.json" for count in counts
        ]
        for file in files:
            check_target(file, overwrite=overwrite)
        reasoner = common.load(run, device, dtype)

        from rim.evaluate.accuracy import score, write_evaluation
        from rim.report.selectors import selectors_table, thresholds_sentence
        from rim.report.tables import blocks_table, evaluation_table

        options = {"max_new_tokens": max_new_tokens, "sampling": sampling, "batch_size": batch_size}
        person = common.console_for(json_)
        with common.progress("answering", len(counts) * len(examples), person) as advance:
            results = [
                score(reasoner, examples, blocks=count, progress=advance, **options)
                for count in counts
            ]
        again = None
        if fallback is not None:
            other = common.load(fallback, device, dtype)
            longer = {**options, "max_new_tokens": max(selecting.LONGEST_SOLUTION, max_new_tokens)}
            with common.progress("asking the fall-back", len(examples), person) as advance:
                again = score(other, examples, all_blocks=False, progress=advance, **longer)
        records = []
        written = []
        for count, result, file in zip(counts, results, files, strict=True):
            settings = {
                "blocks": count,
                "max_new_tokens": max_new_tokens,
                "sampling": vars(sampling),
            }
            selection = None
            if names:
                marks = again.right["final"] if again else None
                on = (target, data_hash(examples), data.name) if calibrate else None
                selection = selecting.select_on(
                    reasoner, run, examples, result, names, count, marks, on, max_new_tokens
                )
            record, wrong = write_evaluation(
                result, file, run, data.name, examples, settings, selection
            )
            records.append(record)
            written.append(f"Result: {file}\nWrong answers: {wrong}")
        shown = common.printable_tree(records)
        person.print(blocks_table(shown) if len(shown) > 1 else evaluation_table(shown[0]))
        for record in shown:
            if "selection" in record:
                person.print(selectors_table(record["selection"]))
                common.say(thresholds_sentence(record["selection"], record["data"]), person)
        for result in results:
            for line in _about_answers(result.summary, result.wrong, max_new_tokens):
                common.say(line, person)
        common.say("\n".join(written), person)
        if json_:
            common.print_json(records)


def _about_answers(
    summary: dict[str, Any], wrong: Sequence[dict[str, Any]], max_new_tokens: int
) -> list[str]:
    """Wrong answers that may be no fault of the model's: cut off, or empty."""
    total, after = (
        summary["questions"],
        f" after {summary['blocks']} blocks" * (summary["blocks"] is not None),
    )
    lines = []
    if cut := summary["unfinished"]:
        lines.append(
            f"Note: {cut} of {total} answers{after} reached --max-new-tokens {max_new_tokens} "
            "without an end, and count as wrong"
        )
    if empty := sum(not row["text"].strip() for row in wrong):
        lines.append(f"Note: {empty} of {total} answers{after} are empty")
    return lines
