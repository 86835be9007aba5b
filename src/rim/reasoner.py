"""A trained model, ready to answer: what `from rim import load` gives."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rim.data.examples import Example
from rim.evaluation import Evaluation, evaluate, parse_answer
from rim.generation import After, Generated, generate
from rim.modeling import load_trained, read_prompt_format
from rim.runs import find_model_dir
from rim.sampling import Sampling
from rim.timing import timed
from rim.tokens import PromptEncoder


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
        """Answers to many questions, batched; see `rim.generation.generate`."""
        generated = generate(
            self.model,
            self.encoder,
            questions,
            num_blocks=self.trained_blocks if blocks is None else blocks,
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

    def evaluate(
        self, examples: Sequence[Example], *, blocks: int | None = None, **options: Any
    ) -> Evaluation:
        """Score on examples; options as in `rim.evaluation.evaluate`."""
        count = self.trained_blocks if blocks is None else blocks
        return evaluate(self.model, self.encoder, examples, num_blocks=count, **options)

    def latency(
        self,
        questions: Sequence[str],
        *,
        blocks: int | None = None,
        max_new_tokens: int = 64,
        warmup: int = 3,
    ) -> dict[str, float]:
        """Median milliseconds of one question at a time: to the first token of the answer (chain of
        thought has written its steps by then), and to its last.

        Each question is asked twice in a row, for the whole and for so many tokens, so both see
        the same machine.
        """
        for question in list(questions)[:warmup]:
            self.ask(question, blocks=blocks, max_new_tokens=max_new_tokens)

        def ask(question: str, limit: int) -> tuple[float, Answer]:
            call = functools.partial(self.ask, question, blocks=blocks, max_new_tokens=limit)
            return timed(call, self.model.device)

        first, whole, tokens = [], [], []
        for question in questions:
            milliseconds, answer = ask(question, max_new_tokens)
            whole.append(milliseconds)
            tokens.append(answer.num_tokens)
            first.append(ask(question, self._tokens_to_answer(answer))[0])
        return {
            "ttft_ms": statistics.median(first),
            "answer_ms": statistics.median(whole),
            "tokens": statistics.fmean(tokens),
        }

    def _tokens_to_answer(self, answer: Answer) -> int:
        """Tokens of a text up to the first one of the answer's target, that one included."""
        if not answer.answer:
            return answer.num_tokens
        target = len(self.encoder.answer_ids(answer.answer)) - (not answer.finished)
        return max(1, answer.num_tokens - target + 1)


def best_device() -> str:
    """The fastest device here: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load(path: str | Path, *, device: str | None = None, attention: str | None = None) -> Reasoner:
    """Load a run folder or a model folder; LoRA adapters are merged.

    Raises:
        ConfigError: there is no finished model.
    """
    folder = find_model_dir(path)
    model, tokenizer = load_trained(folder, merge=True, attention=attention, device=device)
    return Reasoner(model, PromptEncoder(tokenizer, read_prompt_format(folder)))
