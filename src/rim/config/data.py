"""Settings of data sources: files, hub sets, generators (their own are in `rim.config.tasks`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from rim.config.base import PositiveInt, Settings
from rim.config.tasks import (
    ArithmeticConfig,
    BracketsConfig,
    GeneratorConfig,
    GraphSearchConfig,
    MultiplicationConfig,
    PairMatchingConfig,
    PointersConfig,
    PrefixCountsConfig,
    RelationsConfig,
    TaskName,
    WordProblemsConfig,
)

#: Published formats whose records are JSON objects; a hub set may hold the same records.
RecordFormat = Literal[
    "jsonl", "gsm8k", "gsm8k_sentences", "gsm8k_aug_json", "gsm_hard", "svamp", "prosqa"
]
DataFormat = Literal[
    "auto", "csv", "parquet", "gsm8k_aug", "multiplication_file", "hub", RecordFormat, TaskName
]


class Columns(Settings):
    """Names of the columns of a table or a hub set, or of the fields of a JSONL. Steps may be left
    out, and their default column may be absent.
    """

    question: str = "question"
    steps: str | None = "steps"
    answer: str = "answer"

    @model_serializer(mode="wrap")
    def _as_named(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what was named, also where that is the default: a column that is named must be
        there, and a file whose columns are named is read by them. So a written recipe reads back.
        """
        return {name: v for name, v in handler(self).items() if name in self.model_fields_set}


class DataSource(Settings):
    """One data set: a file (`path`), a hub data set (`path` is its name) or a generator.

    The format "auto" is told by the file's content, see `rim.data.guessing.guess_format`.
    """

    format: DataFormat
    path: str | None = None
    limit: PositiveInt | None = None
    subset: str | None = None
    split: str = "train"
    columns: Columns = Columns()  # of jsonl, csv, parquet and hub
    records: RecordFormat | None = None  # hub rows read as that format's records, not by columns
    step_separator: Annotated[str, Field(min_length=1)] = "\n"  # in steps that are one string
    data_files: str | None = None  # hub loaders such as "json" or "parquet" on a local file
    part: Literal["all", "train", "validation", "test"] = "all"  # of one file, parted by question
    streaming: bool = False  # training data only: read piece by piece, never held in memory
    exclude: tuple[str, ...] = ()  # data files whose questions must not occur in this source
    arithmetic: ArithmeticConfig = ArithmeticConfig()
    brackets: BracketsConfig = BracketsConfig()
    graph_search: GraphSearchConfig = GraphSearchConfig()
    multiplication: MultiplicationConfig = MultiplicationConfig()
    pair_matching: PairMatchingConfig = PairMatchingConfig()
    pointers: PointersConfig = PointersConfig()
    prefix_counts: PrefixCountsConfig = PrefixCountsConfig()
    relations: RelationsConfig = RelationsConfig()
    word_problems: WordProblemsConfig = WordProblemsConfig()

    @property
    def task(self) -> GeneratorConfig | None:
        """The settings of the task that this source generates; None for files and hub sets."""
        settings = getattr(self, self.format, None)  # a task's settings are named as its format
        return settings if isinstance(settings, GeneratorConfig) else None

    @model_validator(mode="after")
    def _path_given(self) -> Self:
        if self.task is None and not self.path:
            raise ValueError(f"format {self.format!r} needs a path")
        if self.format != "hub":
            own = {"subset": None, "records": None, "data_files": None, "split": "train"}
            if given := [name for name, default in own.items() if getattr(self, name) != default]:
                raise ValueError(f"{given[0]} is for format: hub, not for {self.format}")
        if self.task is not None and self.part != "all":
            raise ValueError(f"{self.format} is generated: its own split says which part it is")
        if self.streaming and self.task is not None:
            raise ValueError(
                f"streaming needs a file or a set of the hub; {self.format} is generated in memory "
                "(rim data generate writes a file)"
            )
        if self.task is not None and self.path:
            raise ValueError(
                f"{self.format} is generated and reads no file; to read {self.path}, name its "
                "format (auto, jsonl, ...), to generate, leave path out"
            )
        if self.streaming and self.part != "all":
            raise ValueError(
                f"streaming reads one example after the other, and which of them are in part "
                f"{self.part!r} is known when all are read; write that part to a file of its own"
            )
        return self


class DataConfig(Settings):
    """`validation` may be left out: then the examples of `holdout` questions of the training set
    are set apart.
    """

    train: DataSource
    validation: DataSource | None = None
    holdout: PositiveInt = 200
    drop_without_steps: bool = (
        False  # of both; else an example without steps stops a run that needs them
    )

    @model_validator(mode="after")
    def _streamed(self) -> Self:
        if self.train.streaming and self.validation is None:
            raise ValueError(
                "data.train.streaming needs data.validation: questions cannot be held out of a set "
                "that is never in memory"
            )
        if self.validation is not None and self.validation.streaming:
            raise ValueError("streaming is for data.train; validation is held in memory")
        return self
