"""Text to token ids: the only place where a prompt, a step or an answer becomes integers.

Training, generation and export all call `PromptEncoder`, so prompt ids at inference equal
the trunk ids of training by construction. User text can never become a control token.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from transformers import PreTrainedTokenizerBase

from rim.config import ConfigError, MemoryConfig, PromptFormat
from rim.core.layout import build_trunk

# Marks the place of the blocks while a chat template is rendered: plain letters, so no template
# alters them.
BLOCK_MARK = "MEMORYBLOCKSGOHERE"


@dataclass(frozen=True)
class Prompt:
    """A question in tokens, around the place where the blocks go.

    `question_ids`, then K blocks, then `suffix_ids` (for chat models, what opens the assistant's
    turn). Without blocks the two are one text, all of it in `question_ids`: a token may span them.
    """

    question_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...] = ()


def add_memory_tokens(tokenizer: PreTrainedTokenizerBase, memory: MemoryConfig) -> list[int]:
    """Add the three memory tokens as special tokens (nothing happens to those already there).

    Returns:
        Their ids: start, memory, end.
    """
    strings = [memory.start_token, memory.memory_token, memory.end_token]
    vocabulary = tokenizer.get_vocab()
    new = [s for s in strings if s not in vocabulary]
    for string in strings:
        if string in vocabulary and not _is_special(tokenizer, vocabulary[string]):
            raise ConfigError(
                f"the memory token {string!r} is an ordinary word of this tokenizer; choose another"
            )
    if new:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": new}, replace_extra_special_tokens=False
        )
    return memory_token_ids(tokenizer, memory)


def _is_special(tokenizer: PreTrainedTokenizerBase, token_id: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(token_id)
    return added is not None and added.special


def memory_token_ids(tokenizer: PreTrainedTokenizerBase, memory: MemoryConfig) -> list[int]:
    """Ids of start, memory and end token.

    Raises:
        ConfigError: the tokenizer lacks one.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [
        s
        for s in (memory.start_token, memory.memory_token, memory.end_token)
        if s not in vocabulary
    ]
    if missing:
        raise ConfigError(
            f"the tokenizer has no memory token {missing[0]!r}; was this model trained with RiM?"
        )
    return [vocabulary[s] for s in (memory.start_token, memory.memory_token, memory.end_token)]


def _frame(
    memory: MemoryConfig, start: int, token: int, end: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The tokens of one block, and those that open and close all blocks together."""
    latents = (token,) * memory.tokens
    if memory.framing == "each":
        return (start, *latents, end), (), ()
    return (latents, (start,), (end,)) if memory.framing == "once" else (latents, (), ())


class PromptEncoder:
    """Encodes questions, steps and answers under one `PromptFormat`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat):
        if not isinstance(tokenizer.eos_token_id, int):
            raise ConfigError(
                "the tokenizer has no end-of-text token, which every read-out must end with"
            )
        self.tokenizer = tokenizer
        self.format = prompt_format
        start, token, end = memory_token_ids(tokenizer, prompt_format.memory)
        self.memory_ids = (start, token, end)
        self.block_ids, self.opening_ids, self.closing_ids = _frame(
            prompt_format.memory, start, token, end
        )
        self.stop_id: int = tokenizer.eos_token_id
        pad_id = tokenizer.pad_token_id
        self.pad_id: int = pad_id if isinstance(pad_id, int) else self.stop_id
        self.is_chat = prompt_format.templates.chat == "auto" and bool(tokenizer.chat_template)
        self.bos_ids = self._find_bos()
        # Steps and answers recur a lot, and a tokenizer call costs more than a look-up.
        self._cached_text_ids = functools.lru_cache(maxsize=50_000)(self._encode_text)

    def _find_bos(self) -> tuple[int, ...]:
        """The begin-of-text id, if the tokenizer puts one before every text."""
        ids = self.tokenizer("a")["input_ids"]
        return (ids[0],) if ids and ids[0] == self.tokenizer.bos_token_id else ()

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text. Control tokens inside it are split into ordinary pieces."""
        return list(self._cached_text_ids(text))

    def _encode_text(self, text: str) -> tuple[int, ...]:
        encoded = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoded)

    def prompt(self, question: str, blocks: int = 1) -> Prompt:
        """Encode a question up to (and, for chat models, beyond) the place of the blocks.

        Args:
            blocks: all numbers but 0 give the same.
        """
        if self.is_chat:
            return self._chat_prompt(question, blocks)
        text = self.format.templates.question_text(question)
        return Prompt((*self.bos_ids, *self.text_ids(text)))

    def _chat_prompt(self, question: str, blocks: int) -> Prompt:
        templates = self.format.templates
        at_user_end = templates.placement == "user_end"
        # The template's outer line breaks part question and blocks in a plain prompt only.
        content = self.break_control_strings(templates.question_text(question).strip())
        messages = [{"role": "user", "content": content + (BLOCK_MARK if at_user_end else "")}]
        if templates.system is not None:
            messages.insert(0, {"role": "system", "content": templates.system})
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            raise ConfigError(f"the chat template refuses this prompt: {error}") from None
        assert isinstance(text, str)
        # The last mark is ours: the user's text comes before it.
        before, mark, after = text.rpartition(BLOCK_MARK) if at_user_end else (text, "-", "")
        if not mark:
            raise ConfigError(
                "the chat template dropped the user's text; set templates.chat: never"
            )
        if not blocks:
            return Prompt(self._rendered_ids(before + after))
        # What follows the blocks follows a control token, which some tokenizers heed.
        anchored_ids = self._rendered_ids(self.format.memory.end_token + after)
        end = anchored_ids.index(self.memory_ids[-1])
        return Prompt(self._rendered_ids(before), anchored_ids[end + 1 :])

    def _rendered_ids(self, text: str) -> tuple[int, ...]:
        """Ids of text with control tokens in it, as a chat template renders it."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def break_control_strings(self, text: str) -> str:
        """Put a space into every control-token string of a text, so that none survives rendering.

        A chat template mixes user text with real control tokens in one string, so here the text
        itself must change; `<|mem|>` becomes `< |mem|>`.
        """
        found = True
        while found:
            found = False
            for string in self.control_strings:
                if string in text:
                    text, found = text.replace(string, f"{string[0]} {string[1:]}"), True
        return text

    @functools.cached_property
    def control_strings(self) -> list[str]:
        """Strings that the tokenizer reads as control tokens, the longest first."""
        added = self.tokenizer.added_tokens_decoder.values()
        return sorted(
            {t.content for t in added if t.special and len(t.content) > 1}, key=len, reverse=True
        )

    def prompt_ids(self, question: str, blocks: int) -> list[int]:
        """The whole prompt after which the answer is decoded: question and blocks, as every
        training sequence begins, and what opens the answer.
        """
        prompt = self.prompt(question, blocks)
        ids = build_trunk(prompt.question_ids, self.block_ids, blocks, self.opening_ids)
        return [*ids, *self.readout_prefix_ids(prompt, blocks)]

    def readout_prefix_ids(self, prompt: Prompt, after_block: int) -> tuple[int, ...]:
        """What is fed between block `after_block` and the target: the end of the blocks, where they
        have one in common, and what opens the assistant's turn.
        """
        return (*(self.closing_ids if after_block else ()), *prompt.suffix_ids)

    def step_ids(self, step: str) -> tuple[int, ...]:
        """A step as a read-out's target, stop token included."""
        return self._target(self.format.templates.step_text(step))

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """An answer as a read-out's target, stop token included."""
        return self._target(self.format.templates.answer_text(answer))

    def solution_ids(self, steps: Sequence[str], answer: str) -> tuple[int, ...]:
        """A worked solution, steps and answer, as one target, stop token included."""
        return self._target(self.format.templates.solution_text(steps, answer))

    @functools.cached_property
    def num_marker_tokens(self) -> int:
        """Tokens of an answer that only announce it ("####"), as far as they stand alone: a blank
        that merges with the answer's first token is not one of them.
        """
        return len(self.text_ids(self.answer_marker.rstrip()))

    def _target(self, text: str) -> tuple[int, ...]:
        return (*self.text_ids(text), self.stop_id)

    @property
    def answer_marker(self) -> str:
        """Literal text that stands before an answer (for the answer parser)."""
        return self.format.templates.answer_marker
