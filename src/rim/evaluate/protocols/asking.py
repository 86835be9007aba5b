"""Ask a model many questions under an intervention, and read off the log-probability of every
answer of a closed set.

An intervention acts when the trunk is in the cache; only what runs afterwards can react to it. In
the prompt that a person sees all blocks are trunk, so an altered block would be met by later blocks
that still remember the old one. Here the last blocks can be made part of the read-out
(`live` of them): they are the same tokens at the same positions, see the same columns, and run
after the intervention. Unaltered, nothing changes (tested).

Shape legend: N questions, A answers of the closed set.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rim.config import ConfigError
from rim.core.tokens import Prompt, PromptEncoder
from rim.infer.answers import parse_answer, same_answer
from rim.infer.decode import generate, refuse_interventions
from rim.infer.prefill import Between, Filled, Slot, prefill
from rim.infer.reasoner import Reasoner


class _Continued(PromptEncoder):
    """An encoder whose prompts go on behind the trunk: by live blocks, by the answer's opening."""

    def __init__(self, encoder: PromptEncoder, live: int, opening_ids: Sequence[int] = ()):
        super().__init__(encoder.tokenizer, encoder.format)
        self._live, self._answer_opening = live, tuple(opening_ids)

    def prompt(self, question: str, blocks: int) -> Prompt:
        """`blocks` of them in the trunk, the live ones behind it."""
        prompt = super().prompt(question, blocks)
        behind = (*self.block_ids * self._live, *prompt.suffix_ids, *self._answer_opening)
        return replace(prompt, suffix_ids=behind)


@dataclass(frozen=True)
class Asking:
    """A model, its number of blocks, and the closed set of answers.

    Raises:
        ConfigError: answers that do not differ in the token behind their common beginning.
    """

    reasoner: Reasoner
    blocks: int
    answers: tuple[str, ...]
    batch_size: int = 256

    def __post_init__(self) -> None:
        refuse_interventions(self.reasoner.model, self.reasoner.encoder)
        self._answer_tokens()

    def _answer_tokens(self) -> tuple[tuple[int, ...], list[int]]:
        """Return the tokens that all answers begin with (a marker), and the next one of each."""
        ids = [self.reasoner.encoder.answer_ids(answer) for answer in self.answers]
        same = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*ids, strict=False))
        opening = tuple(tokens[0] for tokens in same)
        told_by = [own[len(opening)] for own in ids if len(own) > len(opening)]
        if len(set(told_by)) < len(self.answers):
            raise ConfigError(
                f"the answers {', '.join(self.answers)} do not differ in their first token, which "
                "this protocol tells them by; take a task with shorter answers"
            )
        return opening, told_by

    @property
    def can_run_live(self) -> bool:
        """Whether later blocks as part of the read-out are the same as in the trunk."""
        prompt_format = self.reasoner.encoder.format
        memory = prompt_format.memory
        return (
            prompt_format.feedback == "none"
            and memory.framing != "once"
            and memory.attention == "causal"
            and memory.readouts_see_question
        )

    def batches(self, questions: Sequence[str]) -> Iterator[list[int]]:
        """Question numbers, by equal length: then a slice of a prompt fits its neighbours. Those of
        a length are shared out evenly, so that (from batches of three on) nobody is left alone.
        """
        by_length: dict[int, list[int]] = {}
        for i, question in enumerate(questions):
            length = len(self.reasoner.encoder.prompt_ids(question, self.blocks))
            by_length.setdefault(length, []).append(i)
        for group in by_length.values():
            parts = -(-len(group) // self.batch_size)
            for part in range(parts):
                yield group[part * len(group) // parts : (part + 1) * len(group) // parts]

    def _in_trunk(self, live: int, blocks: int | None = None) -> int:
        if live and not self.can_run_live:
            raise ConfigError("the later blocks of this model cannot run after an intervention")
        return (self.blocks if blocks is None else blocks) - live

    @torch.inference_mode()
    def logprobs(
        self,
        questions: Sequence[str],
        between: Between | None = None,
        *,
        live: int = 0,
        blocks: int | None = None,
    ) -> Tensor:
        """Log-probability `[N, A]` of each answer's token, over the whole vocabulary.

        Args:
            between: acts on batches of equally long prompts.
            live: how many of the last blocks run after it.
            blocks: other than this object's number of them.
        """
        trunk_blocks = self._in_trunk(live, blocks)
        opening, told_by = self._answer_tokens()
        encoder = _Continued(self.reasoner.encoder, live, opening)
        rows = torch.empty(len(questions), len(self.answers))
        self.reasoner.model.eval()
        for chosen in self.batches(questions):
            prompts = [encoder.prompt(questions[i], trunk_blocks) for i in chosen]
            slots = [Slot(b, trunk_blocks, 0, 1) for b in range(len(prompts))]
            _, logits_NV = prefill(self.reasoner.model, encoder, prompts, slots, between)
            rows[chosen] = logits_NV.float().log_softmax(-1)[:, told_by].cpu()
        return rows

    def decode(
        self,
        questions: Sequence[str],
        between: Between | None = None,
        *,
        live: int = 0,
        max_new_tokens: int = 16,
    ) -> list[str]:
        """Freely decoded answers; "" where the text did not end."""
        texts = self.texts(questions, between, live=live, max_new_tokens=max_new_tokens)
        encoder = self.reasoner.encoder
        return [parse_answer(text, encoder) if text else "" for text in texts]

    def texts(
        self,
        questions: Sequence[str],
        between: Between | None = None,
        *,
        live: int = 0,
        max_new_tokens: int = 16,
    ) -> list[str]:
        """Freely decoded texts; "" where one did not end."""
        trunk_blocks = self._in_trunk(live)
        encoder = _Continued(self.reasoner.encoder, live)
        texts = [""] * len(questions)
        for chosen in self.batches(questions):
            rows = generate(
                self.reasoner.model,
                encoder,
                [questions[i] for i in chosen],
                blocks=trunk_blocks,
                max_new_tokens=max_new_tokens,
                batch_size=self.batch_size,
                between=between,
            )
            for i, (answer,) in zip(chosen, rows, strict=True):
                texts[i] = answer.text if answer.finished else ""
        return texts

    def chosen(self, logprobs_NA: Tensor) -> list[str]:
        """The likeliest answer of the closed set for each question."""
        return [self.answers[a] for a in logprobs_NA.argmax(-1).tolist()]


_same_answer = functools.cache(same_answer)  # there are few answers, and many questions


def agree(given: Sequence[str], wanted: Sequence[str]) -> list[bool]:
    return [_same_answer(one, other) for one, other in zip(given, wanted, strict=True)]


def changed_by(between: Between, change: Callable[[Tensor, Tensor, str, int], Tensor]) -> Between:
    """An intervention that lets `change(before, after, name, layer)` decide what is written, from
    the states `[B, H, C, D]` before and after another one.
    """

    def altered(filled: Filled) -> None:
        layers: list[Any] = filled.cache.layers
        before = [(layer.keys, layer.values) for layer in layers]
        between(filled)
        for index, (layer, states) in enumerate(zip(layers, before, strict=True)):
            for name, old in zip(("keys", "values"), states, strict=True):
                new = getattr(layer, name)
                if new is not old:
                    setattr(layer, name, change(old, new, name, index))

    return altered
