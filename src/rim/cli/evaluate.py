"""`rim eval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rim.cli import common, selecting
from rim.cli.columns import reading
from rim.cli.common import tell_of_more
from rim.cli.help import Dtype, NotNegative, Positive, PositiveOrNone, refuse_unused


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
        from rim.results import wrong_answers_file

        asked = block_counts(blocks)
        sampling = common.sampling(temperature, 0, top_p, samples, seed)
        examples = open_file(data, format_, limit, reading(column, separator))
        prompt_format = read_prompt_format(check_model(run, asked, device))
        trained = prompt_format.trained_blocks
        counts = [trained if count is None else count for count in asked]
        names = selecting.check_select(select, run, min(counts))
        if not names and (fallback is not None or calibrate):
            raise ConfigError("--fallback and --calibrate go with --select")
        if "probe" in names:
            selecting.trust_probe(run, examples)
        if calibrate:
            _check_calibration(target, temperature, counts)
        else:
            refuse_unused("goes with --calibrate", "target")
        if fallback is not None:
            for count in [] if calibrate else counts:
                check_calibrated(names, run, count)
            check_model(fallback, (), device)
        files = targets(out, counts) or [
            run / "evaluations" / f"{data.stem}-k{count}.json" for count in counts
        ]
        for file in files:
            check_target(file, overwrite=overwrite)
            check_target(wrong_answers_file(file), overwrite=overwrite)
        tell_of_more(asked, prompt_format)
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
            settings = {"blocks": count, "max_new_tokens": max_new_tokens}
            settings["sampling"] = vars(sampling)
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
            written.append(f"Result: {file}")
            written += [f"Wrong answers: {wrong}"] if result.wrong else []
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


def _check_calibration(target: float, temperature: float, counts: Sequence[int]) -> None:
    from rim.config import ConfigError

    if temperature > 0:
        raise ConfigError("--calibrate finds thresholds for greedy answers; no --temperature")
    if not 0 <= target <= 1:
        raise ConfigError(f"--target is a share between 0 and 1, got {target}")
    if len(counts) > 1:
        raise ConfigError("--calibrate goes with one number of --blocks")


def _about_answers(
    summary: dict[str, Any], wrong: Sequence[dict[str, Any]], max_new_tokens: int
) -> list[str]:
    """Wrong answers that may be no fault of the model's: cut off, or empty."""
    total, blocks, lines = summary["questions"], summary["blocks"], []
    after = "" if blocks is None else f" after {blocks} blocks"
    if cut := summary["unfinished"]:
        lines.append(
            f"Note: {cut} of {total} answers{after} reached --max-new-tokens {max_new_tokens} "
            "without an end, and count as wrong"
        )
    if empty := sum(not row["text"].strip() for row in wrong):
        lines.append(f"Note: {empty} of {total} answers{after} are empty")
    return lines
