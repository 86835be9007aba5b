"""What is timed: methods, sizes, repeats."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from rim.config import MethodName, ScratchConfig, Settings
from rim.config.base import PositiveInt
from rim.methods import BUILT_IN

GPT2_SMALL = ScratchConfig(
    family="gpt2", layers=12, width=768, heads=12, max_positions=1024, vocab_size=50257
)
LLAMA_1B = ScratchConfig(
    family="llama",
    layers=16,
    width=2048,
    heads=32,
    key_value_heads=8,
    feed_forward=8192,
    max_positions=4096,
    vocab_size=128256,
)
LLAMA_3B = LLAMA_1B.model_copy(update={"layers": 28, "width": 3072, "heads": 24})
PRESETS = {
    "gpt2-small-size": GPT2_SMALL,
    "llama-3.2-1b-size": LLAMA_1B,
    "llama-3.2-3b-size": LLAMA_3B,
}


class BenchmarkSettings(Settings):
    """What is timed; the defaults are one small table."""

    methods: tuple[MethodName, ...] = ("direct", "rim", "coconut", "cot")
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
    "methods": BUILT_IN,
    "batch_sizes": (1, 8, 32),
    "question_tokens": (32, 128, 512),
    "blocks": (4, 8, 16),
}
