"""A trained model, ready to answer: what `from rim import load` gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rim.core.tokens import PromptEncoder
from rim.infer.answers import parse_answer
from rim.infer.decode import After, Generated, generate
from rim.infer.sampling import Sampling
from rim.models.folder import find_model_dir, read_prompt_format
from rim.models.loading import load_trained


@dataclass(frozen=True)
class Answer:
    """`answer` is parsed from the decoded `text`; `logprob` is the log-probability of the text."""

    answer: str
    text: str
    after_block: int
    logprob: float
    finished: bool
    num_tokens: int


class Reasoner:
    """A model with its tokenizer and prompt format."""

    def __init__(self, model: Any, encoder: PromptEncoder):
        self.model = model
        self.encoder = encoder

    @property
    def trained_blocks(self) -> int:
        """K of training: the number of blocks a question gets by default (0 for methods without
        blocks).
        """
        return self.encoder.format.trained_blocks

    def ask(
        self,
        question: str,
        *,
        blocks: int | None = None,
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
    ) -> Answer:
        """Answer one question after `blocks` memory blocks (default: as many as in training)."""
        return self.ask_many(
            [question], blocks=blocks, max_new_tokens=max_new_tokens, sampling=sampling
        )[0][0]

    def ask_all_blocks(
        self, question: str, *, blocks: int | None = None, max_new_tokens: int = 64
    ) -> list[Answer]:
        """The answer after each block, from one prefill: what the model knew after 1, 2, ... K
        blocks.
        """
        return self.ask_many([question], blocks=blocks, after="all", max_new_tokens=max_new_tokens)[
            0
        ]

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        blocks: int | None = None,
        after: After = "final",
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[Answer]]:
        """Answers to many questions, batched; see `rim.infer.decode.generate`."""
        generated = generate(
            self.model,
            self.encoder,
            questions,
            blocks=self.trained_blocks if blocks is None else blocks,
            after=after,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            batch_size=batch_size,
            progress=progress,
        )
        return [[self._answer(g) for g in texts] for texts in generated]

    def _answer(self, generated: Generated) -> Answer:
        parsed = parse_answer(generated.text, self.encoder)
        count = len(generated.token_ids) + generated.finished
        return Answer(
            parsed,
            generated.text,
            generated.after_block,
            generated.logprob,
            generated.finished,
            count,
        )


def best_device() -> str:
    """The fastest device here: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load(
    path: str | Path,
    *,
    device: str | None = None,
    attention: str | None = None,
    dtype: str | None = None,
) -> Reasoner:
    """Load a run folder or a model folder; LoRA adapters are merged.

    Args:
        dtype: "float32" or "bfloat16", if not that of the trained weights.

    Raises:
        ConfigError: there is no finished model.
    """
    folder = find_model_dir(path)
    model, tokenizer = load_trained(
        folder, merge=True, attention=attention, device=device, dtype=dtype
    )
    return Reasoner(model, PromptEncoder(tokenizer, read_prompt_format(folder)))
