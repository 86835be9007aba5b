"""Settings of one training stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rim.config.base import PositiveInt, Settings, Share
from rim.losses import Reduction
from rim.schedules import Weighting


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
