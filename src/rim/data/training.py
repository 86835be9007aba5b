"""What a recipe trains and validates on: two sources, or one with some questions held out."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rim.config import DataConfig, DataSource
from rim.data.examples import DataError, Example
from rim.data.guessing import known_format
from rim.data.readers import FILE_FORMATS
from rim.data.sources import excluded_questions, load_examples, read_source
from rim.data.streamed import StreamedExamples


def load_training_data(config: DataConfig, seed: int) -> tuple[Sequence[Example], list[Example]]:
    """Training and validation examples; without a validation source, some training examples are
    held out.

    Raises:
        DataError: a validation question that is also a training question, or nothing left to train
            or to validate on.
    """
    if config.train.streaming:
        return _streamed_training_data(config)
    train = _training_part(config.train, config)
    if config.validation is None:
        if not train:
            raise _without_steps("training")
        questions = len({example.same_question for example in train})
        if config.holdout >= questions:
            different = "" if questions == len(train) else f" with {questions} different questions"
            raise DataError(
                f"data.holdout {config.holdout} leaves nothing of {len(train)} training examples"
                f"{different}; set a smaller one (data.holdout={max(1, questions // 5)}) or "
                "data.validation"
            )
        return hold_out(train, config.holdout, seed)
    validation = _training_part(config.validation, config)
    for part, examples in (("training", train), ("validation", validation)):
        if not examples:
            raise _without_steps(part)
    known = {example.same_question for example in train}
    for example in validation:
        if example.same_question in known:
            raise _also_trained_on(example)
    return train, validation


def _streamed_training_data(config: DataConfig) -> tuple[StreamedExamples, list[Example]]:
    assert config.validation is not None, "checked by the settings"
    validation = _training_part(config.validation, config)
    if not validation:
        raise _without_steps("validation")
    held_out = {example.same_question: example for example in reversed(validation)}

    def keep(example: Example) -> bool:
        if example.same_question in held_out:
            raise _also_trained_on(held_out[example.same_question])
        return bool(example.steps) or not config.drop_without_steps

    return stream_examples(config.train, keep), validation


def _without_steps(part: str) -> DataError:
    return DataError(f"no {part} example has steps (data.drop_without_steps leaves none)")


def _also_trained_on(example: Example) -> DataError:
    return DataError(f"{example.origin}: this validation question is also a training question")


def _training_part(source: DataSource, config: DataConfig) -> list[Example]:
    return [e for e in load_examples(source) if e.steps or not config.drop_without_steps]


def hold_out(
    examples: Sequence[Example], count: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Set the examples of `count` questions apart: a repeated question stays on one side."""
    first = {e.same_question: e.question for e in reversed(examples)}
    keys = sorted(first, key=first.__getitem__)
    random.Random(seed).shuffle(keys)
    held = set(keys[:count])
    train, validation = [], []
    for example in examples:
        (validation if example.same_question in held else train).append(example)
    return train, validation


def stream_examples(source: DataSource, keep: Callable[[Example], bool]) -> StreamedExamples:
    """The examples of a source as `load_examples` has them, of which at most one is in memory.

    Args:
        keep: which of them count; may raise a DataError about one.

    Raises:
        DataError: a missing or malformed file, one that cannot be read piece by piece, or a source
            without examples.
    """
    name = str(source.path)
    if source.format != "hub":
        known = known_format(Path(name), source.format, bool(source.columns.model_fields_set))
        if FILE_FORMATS[known].holds == "array":
            raise DataError(
                f"{name} is one JSON array, which can only be read as a whole; write it as one "
                "object a line (JSONL) or leave out streaming"
            )
    excluded = excluded_questions(source)

    def read() -> Iterator[Example]:
        others = (e for e in read_source(source) if e.same_question not in excluded)
        return (e for e in itertools.islice(others, source.limit) if keep(e))

    return StreamedExamples(read, name)
