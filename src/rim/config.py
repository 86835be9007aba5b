"""Settings: frozen, validated when read, explicit when written. Nothing is guessed later.

A recipe is written as YAML; `rim.recipes` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rim.losses import Reduction
from rim.schedules import Weighting

Method = Literal["direct", "cot", "rim"]
DataFormat = Literal[
    "jsonl", "gsm8k", "gsm8k_sentences", "gsm8k_aug", "gsm_hard", "svamp", "hub", "arithmetic"
]
Attention = Literal["sdpa", "eager", "flex_attention"]

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class ConfigError(ValueError):
    """A setting is wrong; the message says which and what to do."""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BlocksConfig(Settings):
    """Memory blocks: K blocks of a start token, M memory tokens and an end token."""

    num_blocks: PositiveInt = 8
    memory_tokens: PositiveInt = 2
    start: str = "<|mem_start|>"
    memory: str = "<|mem|>"
    end: str = "<|mem_end|>"
    attention: Literal["causal", "bidirectional"] = "causal"
    readouts_see_question: bool = True

    @model_validator(mode="after")
    def _distinct_tokens(self) -> Self:
        strings = [self.start, self.memory, self.end]
        if len(set(strings)) < 3 or not all(s.strip() for s in strings):
            raise ValueError(
                f"start, memory and end must be three different non-empty strings, got {strings}"
            )
        return self


class TemplatesConfig(Settings):
    """How question, steps and answer are written. Every read-out ends with the tokenizer's stop
    token.

    `chat` "auto" renders the question through the tokenizer's chat template if it has one.
    `placement` then says where the blocks stand: at the end of the user's turn, or after the
    assistant's header.
    """

    question: str = "{question}\n"
    step: str = "{step}"
    answer: str = "#### {answer}"
    step_separator: str = "\n"
    chat: Literal["auto", "never"] = "auto"
    placement: Literal["user_end", "assistant_start"] = "user_end"
    system: str | None = None

    @model_validator(mode="after")
    def _placeholders(self) -> Self:
        for field in ("question", "step", "answer"):
            if f"{{{field}}}" not in getattr(self, field):
                raise ValueError(
                    f"template {field!r} must contain {{{field}}}, got {getattr(self, field)!r}"
                )
        return self

    # str.replace, not str.format: braces in the data are just braces.

    def question_text(self, question: str) -> str:
        return self.question.replace("{question}", question)

    def step_text(self, step: str) -> str:
        return self.step.replace("{step}", step)

    def answer_text(self, answer: str) -> str:
        return self.answer.replace("{answer}", answer)

    def solution_text(self, steps: Sequence[str], answer: str) -> str:
        """A worked solution: steps and answer, joined."""
        return self.step_separator.join([*map(self.step_text, steps), self.answer_text(answer)])


class PromptFormat(Settings):
    """All that fixes the tokens around a question; saved beside a trained model."""

    method: Method = "rim"
    blocks: BlocksConfig = BlocksConfig()
    templates: TemplatesConfig = TemplatesConfig()

    @property
    def trained_blocks(self) -> int:
        """Blocks in a prompt by default: K for a memory-block method, none for the others."""
        return self.blocks.num_blocks if self.method == "rim" else 0


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


class ScratchConfig(Settings):
    """A model built from nothing, with a byte-level BPE tokenizer trained on the training texts."""

    family: Literal["gpt2", "llama", "qwen3"] = "llama"
    layers: PositiveInt = 6
    width: PositiveInt = 96
    heads: PositiveInt = 4
    feed_forward: PositiveInt | None = None
    max_positions: PositiveInt = 512
    vocab_size: PositiveInt = 512
    alphabet: Literal["bytes", "data"] = "bytes"  # see rim.scratch.train_tokenizer

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")
        return self


class LoraSettings(Settings):
    """Rank is the paper's; alpha and targets are not given there: 32 and all linear layers are
    ours.
    """

    rank: PositiveInt = 128
    alpha: PositiveInt = 32
    targets: str | tuple[str, ...] = "all-linear"


class ModelConfig(Settings):
    """Either `base` (hub id, folder or run folder) or `scratch`."""

    base: str | None = None
    revision: str | None = None
    scratch: ScratchConfig | None = None
    tuning: Literal["lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    attention: Attention = "sdpa"
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    trust_remote_code: bool = False

    @model_validator(mode="before")
    @classmethod
    def _no_flash(cls, data: Any) -> Any:
        if isinstance(data, dict) and "flash" in str(data.get("attention", "")):
            raise ValueError(
                f"attention {data['attention']!r} cannot express the read-out mask; "
                f"use one of {', '.join(get_args(Attention))}"
            )
        return data

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.base is None) == (self.scratch is None):
            raise ValueError("give exactly one of 'base' and 'scratch'")
        if self.scratch is not None and self.tuning == "lora":
            raise ValueError("a model from scratch has nothing to adapt: set tuning: full")
        return self


class StageConfig(Settings):
    """One stage of a curriculum, with its own optimizer, schedule and dropout.

    objective: "steps" (each block says a step, the paper's stage 1), "answer" (every block says the
    answer, stage 2; without blocks: direct), "solution" (one read-out: steps and answer, chain of
    thought).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    objective: Literal["steps", "answer", "solution"]
    alignment: Literal["next_step", "own_step"] = "next_step"
    surplus_blocks: Literal["none", "answer"] = "none"
    weighting: Weighting = "ones"
    reduction: Reduction = "sum"
    max_steps: PositiveInt | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch_size: PositiveInt = 128
    micro_batch_size: PositiveInt | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    scheduler: Literal["constant_with_warmup", "cosine", "linear", "cosine_with_min_lr"] = (
        "constant_with_warmup"
    )
    warmup: Share = 0.04
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    dropout: Share = 0.0
    bf16: bool = False
    gradient_checkpointing: bool = False
    evaluate_every: PositiveInt | None = None  # optimizer steps; None: ten times a stage

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of 'max_steps' and 'epochs'")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        return self

    @property
    def accumulation_steps(self) -> int:
        return self.batch_size // (self.micro_batch_size or self.batch_size)


class ValidationConfig(Settings):
    """Validation during training: it selects the checkpoint, and never sees test questions."""

    num_examples: PositiveInt = 200
    batch_size: PositiveInt = 64
    max_new_tokens: PositiveInt = 64


class Recipe(Settings):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    method: Method
    seed: NonNegativeInt = 0
    runs_dir: str = "runs"
    data: DataConfig
    model: ModelConfig
    blocks: BlocksConfig = BlocksConfig()
    templates: TemplatesConfig = TemplatesConfig()
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)]
    validation: ValidationConfig = ValidationConfig()
    report_to: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _stages_fit_method(self) -> Self:
        allowed = {"direct": ("answer",), "cot": ("solution",), "rim": ("steps", "answer")}[
            self.method
        ]
        for stage in self.stages:
            if stage.objective not in allowed:
                raise ValueError(
                    f"stage {stage.name!r}: objective {stage.objective!r} does not belong to "
                    f"method {self.method!r}, which has {' and '.join(allowed)}"
                )
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names, got {names}")
        return self

    @property
    def prompt_format(self) -> PromptFormat:
        return PromptFormat(method=self.method, blocks=self.blocks, templates=self.templates)

    @property
    def needs_steps(self) -> bool:
        return any(stage.objective != "answer" for stage in self.stages)
