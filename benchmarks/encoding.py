"""How long it takes to lay out a data set, with and without the cache of encoded texts.

    python benchmarks/encoding.py

The last line is one JSON object; both times are from one run, in turn, so their ratio holds on a
noisy machine too.
"""

from __future__ import annotations

import json
import statistics
import time

from rim.config import ArithmeticConfig, MemoryConfig, PromptFormat, StageConfig
from rim.core.layout import lay_out
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.data.tasks.arithmetic import generate_arithmetic
from rim.methods import METHODS
from rim.models.scratch import train_tokenizer
from rim.results import environment

EXAMPLES = 3000
REPEATS = 5


def main() -> None:
    examples = generate_arithmetic(ArithmeticConfig(num_examples=EXAMPLES))
    prompt_format = PromptFormat(memory=MemoryConfig(blocks=5))
    tokenizer = train_tokenizer((e.question for e in examples), 300)
    add_memory_tokens(tokenizer, prompt_format.memory)
    stage = StageConfig(name="a", objective="steps", alignment="own_step", max_steps=1)
    seconds: dict[str, list[float]] = {"cached": [], "uncached": []}
    for _ in range(REPEATS):
        for kind, times in seconds.items():
            encoder = PromptEncoder(tokenizer, prompt_format)
            if kind == "uncached":
                encoder._cached_text_ids = encoder._encode_text  # type: ignore[assignment]
            start = time.perf_counter()
            for example in examples:
                lay_out(METHODS["rim"], example, stage, encoder)
            times.append(time.perf_counter() - start)
    medians = {kind: statistics.median(times) for kind, times in seconds.items()}
    print(
        json.dumps(
            {
                "examples": EXAMPLES,
                "seconds": {kind: round(value, 3) for kind, value in medians.items()},
                "speedup": round(medians["uncached"] / medians["cached"], 2),
                "environment": environment(),
            }
        )
    )


if __name__ == "__main__":
    main()
