"""Test questions, checked before anything trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rim.config import ConfigError
from rim.data.examples import DataError, Example
from rim.data.sources import load_examples, load_training_data
from rim.study.compare.plan import Run
from rim.study.compare.settings import Comparison


def check_questions(settings: Comparison, runs: Sequence[Run]) -> None:
    """Load all test sets, and the training data of the runs that are to be trained.

    Raises:
        ConfigError: the selection protocol leaves no question to score.
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
        # Most runs of a task share their data.
        by_data = {run.recipe.data.model_dump_json(): run for run in runs if run.task == task}
        for run in by_data.values():
            _refuse_known(run, tests)


def _refuse_known(run: Run, tests: Mapping[str, Sequence[Example]]) -> None:
    kinds = ("training", "validation")
    data = dict(zip(kinds, load_training_data(run.recipe.data, run.recipe.seed), strict=True))
    known = {e.same_question: (kind, e.origin) for kind in kinds for e in data[kind]}
    for name, examples in tests.items():
        for example in examples:
            if example.same_question in known:
                kind, origin = known[example.same_question]
                raise DataError(
                    f"task {run.task}: {example.origin} (of {name}) is also the {kind} question "
                    f"{origin} of {run.method}; keep it out of the training data, for files with "
                    "data.train.exclude: [TEST FILE]"
                )
