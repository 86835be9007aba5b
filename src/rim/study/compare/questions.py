"""Test questions, checked before anything trains: none is one of training or validation, and none
changed since a run was scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rim.config import ConfigError
from rim.data.examples import DataError, Example
from rim.data.sources import data_hash, load_examples
from rim.data.training import load_training_data
from rim.results import read_json
from rim.study.compare.plan import PlannedRun
from rim.study.compare.settings import Comparison


def check_questions(
    settings: Comparison, runs: Sequence[PlannedRun], done: Sequence[PlannedRun] = ()
) -> None:
    """Load all test sets, and the training data of the runs that are to be trained.

    Args:
        done: finished ones, which were scored on the questions that are there now or are refused.

    Raises:
        ConfigError: the selection protocol leaves no question to score, or a test file has changed
            since a run was scored.
        DataError: data are missing or wrong, or a test question is also one of training or
            validation.
    """
    for task, content in settings.tasks.items():
        tests = {name: load_examples(source) for name, source in content.all_tests.items()}
        if settings.selection and settings.selection.held_out >= len(tests["test"]):
            raise ConfigError(
                f"task {task}: selection.held_out {settings.selection.held_out} leaves nothing to "
                f"score of {len(tests['test'])} test questions"
            )
        hashes = {name: data_hash(examples) for name, examples in tests.items()}
        for run in done:
            if run.task == task and run.result is not None:
                _refuse_other_tests(run.result, hashes)
        # Most runs of a task share their data.
        by_data = {run.recipe.data.model_dump_json(): run for run in runs if run.task == task}
        for run in by_data.values():
            _refuse_known(run, tests)


def _refuse_other_tests(result: Path, hashes: Mapping[str, str]) -> None:
    """A test file may change in place, which no recipe shows."""
    scored = read_json(result)["results"]
    for name, content in scored.items():
        if name in hashes and content["data"]["hash"] != hashes[name]:
            raise ConfigError(
                f"{result} was made on other questions than {name} has now: the file changed in "
                "between. Give the comparison another name (--set name=other), or delete its "
                "results (and its runs, if the training data changed, too)"
            )


def _refuse_known(run: PlannedRun, tests: Mapping[str, Sequence[Example]]) -> None:
    kinds = ("training", "validation")
    data = dict(zip(kinds, load_training_data(run.recipe.data, run.recipe.seed), strict=True))
    # Of the training data, which may be larger than memory, nothing is kept.
    asked = {e.same_question: (name, e.origin) for name, es in tests.items() for e in es}
    for kind in kinds:
        for example in data[kind]:
            if example.same_question in asked:
                name, origin = asked[example.same_question]
                raise DataError(
                    f"task {run.task}: {origin} (of {name}) is also the {kind} question "
                    f"{example.origin} of {run.method}; keep it out of the training data, for "
                    "files with data.train.exclude: [TEST FILE]"
                )
