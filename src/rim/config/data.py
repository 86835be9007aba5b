"""Settings of data sources: files, hub sets, generators."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rim.config.base import PositiveInt, Settings

DataFormat = Literal[
    "jsonl", "gsm8k", "gsm8k_sentences", "gsm8k_aug", "gsm_hard", "svamp", "hub", "arithmetic"
]


class HubColumns(Settings):
    question: str = "question"
    steps: str | None = "steps"
    answer: str = "answer"


class ArithmeticConfig(Settings):
    """Chains such as `3+4-5+2=` modulo `modulus`; the split decides which questions may occur."""

    num_examples: PositiveInt = 2000
    min_operations: PositiveInt = 2
    max_operations: PositiveInt = 4
    modulus: Annotated[int, Field(ge=2)] = 10
    split: Literal["train", "validation", "test"] = "train"
    seed: int = 0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_operations < self.min_operations:
            raise ValueError("max_operations must be >= min_operations")
        return self


class DataSource(Settings):
    """One data set: a file (`path`), a hub data set (`path` is its name) or a generator."""

    format: DataFormat
    path: str | None = None
    limit: PositiveInt | None = None
    subset: str | None = None
    split: str = "train"
    columns: HubColumns = HubColumns()
    step_separator: str = "\n"  # hub columns that hold all steps in one string
    data_files: str | None = None  # hub loaders such as "json" or "parquet" on a local file
    arithmetic: ArithmeticConfig = ArithmeticConfig()

    @model_validator(mode="after")
    def _path_given(self) -> Self:
        if self.format != "arithmetic" and not self.path:
            raise ValueError(f"format {self.format!r} needs a path")
        return self


class DataConfig(Settings):
    """`validation` may be left out: then `holdout` examples of the training set are set apart."""

    train: DataSource
    validation: DataSource | None = None
    holdout: PositiveInt = 200
    drop_without_steps: bool = (
        False  # of both; else an example without steps stops a run that needs them
    )
