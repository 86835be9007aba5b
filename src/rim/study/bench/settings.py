"""What is timed: methods, sizes, repeats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from rim.config import Method, ScratchConfig, Settings
from rim.config.base import PositiveInt

GPT2_SMALL = ScratchConfig(
    family="gpt2", layers=12, width=768, heads=12, max_positions=1024, vocab_size=50257
)
PRESETS = {"gpt2-small-size": GPT2_SMALL}


@dataclass(frozen=True)
class Setup:
    """How a method is timed: its blocks (`swept`: every K asked for) and what it writes before the
    answer.
    """

    blocks: int | Literal["swept"] = 0
    frame: dict[str, Any] = field(default_factory=dict)  # changes to the model's MemoryConfig
    writes: Literal["answer", "steps_and_answer"] = "answer"


LATENTS = {"tokens": 1, "framing": "once"}

# A method is timed by one line here; a test fails for one without. Numbers of latents are those of
# the methods' papers for GPT-2.
SETUPS: dict[Method, Setup] = {
    "direct": Setup(),
    "cot": Setup(writes="steps_and_answer"),
    "pause": Setup(blocks="swept", frame={"framing": "none"}),
    "icot": Setup(),
    "rim": Setup(blocks="swept"),
    "coconut": Setup(blocks=6, frame=LATENTS),
    "codi": Setup(blocks=6, frame=LATENTS),
    "lotus": Setup(blocks=6, frame={"tokens": 13, "framing": "once", "passes": 6}),
}


class BenchmarkSettings(Settings):
    """What is timed; the defaults are one small table."""

    methods: tuple[Method, ...] = ("direct", "rim", "coconut", "cot")
    batch_sizes: tuple[PositiveInt, ...] = (1,)
    question_tokens: tuple[PositiveInt, ...] = (128,)
    blocks: tuple[PositiveInt, ...] = (8,)
    answer_tokens: Annotated[int, Field(ge=2)] = 8
    step_tokens: PositiveInt = 30
    warmup: PositiveInt = 2
    repeats: PositiveInt = 10
    seed: int = 0

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        for name in ("methods", "batch_sizes", "question_tokens", "blocks"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: give at least one")
        return self


FULL_GRID: dict[str, Any] = {
    "methods": get_args(Method),
    "batch_sizes": (1, 8, 32),
    "question_tokens": (32, 128, 512),
    "blocks": (4, 8, 16),
}
