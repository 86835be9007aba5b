"""The two functions that lm-evaluation-harness calls: questions by our readers, answers by our
parser.

The task files in `rim.deploy.harness.tasks` name them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rim.config import DataSource
from rim.config.recipe_yaml import settings_from_dict
from rim.data.sources import load_examples
from rim.infer.answers import is_right


def load_questions(
    source: dict[str, Any],
    answer_marker: str,
    step_separator: str,
    answer_tail: str = "",
    **_metadata: Any,
) -> Any:
    """The questions of a source (as a recipe writes it) as a `datasets.DatasetDict`.

    Args:
        answer_marker: what the model's answer template puts before an answer.
        step_separator: what stands between steps and answer in what it writes.
        answer_tail: what the answer template puts behind an answer.
        _metadata: the harness passes on all it knows of a run.
    """
    import datasets

    examples = load_examples(settings_from_dict(DataSource, source, "dataset_kwargs.source"))
    marks = {"answer_marker": answer_marker, "step_separator": step_separator}
    marks |= {"answer_tail": answer_tail}
    rows = [{"question": e.question, "answer": e.answer, **marks} for e in examples]
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})


def score(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether a text answers a question rightly, as `rim eval` judges it."""
    marks = [doc[name] for name in ("answer_marker", "step_separator", "answer_tail")]
    return {"accuracy": float(is_right(results[0], doc["answer"], *marks))}
