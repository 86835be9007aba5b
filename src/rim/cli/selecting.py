"""`--select` of `rim ask` and `rim eval`: which of a question's K answers is taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rim.cli import common

#: Questions that are timed one at a time.
TIMED = 20
#: Tokens that a fall-back may write: its steps, and the answer.
LONGEST_SOLUTION = 256


def check_select(select: str | None, run: Path, blocks: int, *, alone: bool = False) -> list[str]:
    """The selectors that are meant; none without `--select`.

    Raises:
        ConfigError: no such selector, or a model without blocks.
    """
    if select is None:
        return []
    from rim.config import ConfigError
    from rim.evaluate.selectors import choose_names, has_probe

    names = choose_names(select, has_probe=has_probe(run))
    if blocks < 1:
        raise ConfigError("--select chooses among blocks, and here there are none")
    if alone and len(names) > 1:
        raise ConfigError("`rim ask --select` takes one selector")
    return names


def ask_run(
    run: Path,
    question: str,
    select: str,
    count: int | None,
    fallback: Path | None,
    max_new_tokens: int,
    device: str | None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """One question: the chosen answer, how sure it is, and whether it is better not given."""
    import math

    from rim.cli.checks import check_model
    from rim.evaluate.selectors import (
        SELECTORS,
        BlockAnswer,
        as_record,
        check_calibrated,
        read_thresholds,
    )
    from rim.models.folder import read_prompt_format

    prompt_format = read_prompt_format(check_model(run, [count], device))
    common.tell_of_more([count], prompt_format)
    blocks = prompt_format.trained_blocks
    blocks = blocks if count is None else count
    name = check_select(select, run, blocks, alone=True)[0]
    thresholds = read_thresholds(run, blocks)
    if fallback is not None:
        check_calibrated([name], run, blocks)
        check_model(fallback, (), device)
    reasoner = common.load(run, device, dtype)
    answers = reasoner.ask_many(
        [question], blocks=blocks, after="all", max_new_tokens=max_new_tokens
    )[0]
    row = [BlockAnswer(a.after_block, a.answer, math.exp(a.logprob), a.finished) for a in answers]
    if name == "probe":
        row = _with_scores(reasoner, run, [question], [row])[0]
    choice = SELECTORS[name](row, thresholds)
    record = as_record(choice, name, thresholds)
    text = answers[choice.answer.block - row[0].block].text
    record |= {"text": text, "asked_again": False}
    if record["abstains"] and fallback is not None:
        longer = max(LONGEST_SOLUTION, max_new_tokens)
        again = common.load(fallback, device, dtype).ask(question, max_new_tokens=longer)
        record |= {"answer": again.answer, "text": again.text, "asked_again": True}
    return record


def say_selected(record: dict[str, Any]) -> None:
    """The answer on one line, and on the next why it was taken."""
    answer = record["answer"] if record["asked_again"] or not record["abstains"] else "no answer"
    common.say(common.printable(answer, keep=""))
    about = f"({record['selector']}: block {record['block']}, confidence {record['confidence']:.2f}"
    if record["abstains"]:
        threshold = record["threshold"]
        about += (
            ", and no confidence was enough in calibration"
            if threshold is None
            else f", below the run's {threshold:.2f}"
        )
        about += "; asked again by --fallback" if record["asked_again"] else "; --fallback asks on"
    common.say(about + ")")


def select_on(
    reasoner: Any,
    run: Path,
    examples: Sequence[Any],
    result: Any,
    names: list[str],
    blocks: int,
    fallback_right: str | None,
    calibrating: tuple[float, str, str] | None,
    max_new_tokens: int,
) -> dict[str, Any]:
    """Measure every selector on evaluated questions.

    Args:
        fallback_right: right-or-wrong of the fall-back run, as a string of 0 and 1.
        calibrating: the accuracy wanted of given answers, the data's hash and name: thresholds are
            then found here and kept with the run.
    """
    from rim.evaluate.selector_scores import compare_selectors
    from rim.evaluate.selectors import calibrate, calibrated_on, keep_thresholds, read_thresholds

    rows = result.readouts
    questions = [example.question for example in examples]
    if "probe" in names:
        rows = _with_scores(reasoner, run, questions, rows)
    if calibrating is not None:
        target, data, name = calibrating
        found = calibrate(rows, names, target)
        origin = {"name": name, "data_hash": data, "questions": len(rows), "blocks": blocks}
        keep_thresholds(run, blocks, found, origin | {"max_new_tokens": max_new_tokens})
    right = None if fallback_right is None else [mark == "1" for mark in fallback_right]
    compared = compare_selectors(rows, names, read_thresholds(run, blocks), right)
    compared["calibrated_on"] = calibrated_on(run, blocks)
    compared["ms"] = _milliseconds(reasoner, questions[:TIMED], blocks, max_new_tokens)
    return compared


def _milliseconds(
    reasoner: Any, questions: list[str], blocks: int, max_new_tokens: int
) -> dict[str, float]:
    """Median time of one question: one answer after all blocks, after one, and all K answers."""
    from rim.study.bench.timing import timed

    longest = {"max_new_tokens": max_new_tokens}
    asked = {
        "final": {"blocks": blocks, "after": "final", **longest},
        "first": {"blocks": 1, "after": "final", **longest},
        "all": {"blocks": blocks, "after": "all", **longest},
    }
    times: dict[str, list[float]] = {name: [] for name in asked}
    for number, question in enumerate([questions[0], *questions]):
        for name, options in asked.items():
            ms, _ = timed(
                lambda q=question, o=options: reasoner.ask_many([q], **o), reasoner.model.device
            )
            if number:  # the first warms up
                times[name].append(ms)
    return {name: median(values) for name, values in times.items()}


def trust_probe(run: Path, unseen: Sequence[Any] | None = None) -> Any:
    """The run's probe.

    Raises:
        ConfigError: it belongs to another model, or has seen questions that it is to be scored on.
    """
    from rim.evaluate.probe_files import read_trust_probe
    from rim.evaluate.states import fingerprint
    from rim.models.folder import find_model_dir

    return read_trust_probe(run, fingerprint(find_model_dir(run)), unseen)


def _with_scores(reasoner: Any, run: Path, questions: Sequence[str], rows: Any) -> Any:
    import dataclasses

    from rim.evaluate.probe_files import trust_scores

    probe = trust_probe(run)
    found = trust_scores(probe, reasoner, questions, blocks=rows[0][-1].block)
    return [
        [dataclasses.replace(a, score=s) for a, s in zip(row, own, strict=True)]
        for row, own in zip(rows, found, strict=True)
    ]
