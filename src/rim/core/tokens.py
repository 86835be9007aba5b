"""Text to token ids: the only place where a prompt, a block, a step or an answer becomes integers.

Training, generation and export all call `PromptEncoder`, so prompt ids at inference equal
the trunk ids of training by construction. User text can never become a control token.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from transformers import PreTrainedTokenizerBase

from rim.config import ConfigError, MemoryConfig, PromptFormat
from rim.core.layout import Trunk
from rim.data.examples import DataError, Example

# Marks the place of the blocks while a chat template is rendered: plain letters, so no template
# alters them.
BLOCK_MARK = "MEMORYBLOCKSGOHERE"

#: What a chat template writes for today's date. Llama 3's writes this one where it finds no clock.
FIXED_DATE = datetime.date(2024, 7, 26)
_TODAY = re.compile(r"""strftime_now\(\s*(["'])([^"']*)\1\s*\)""")


@dataclass(frozen=True)
class Prompt:
    """A question in tokens with its blocks, and what is fed between a block and what follows it.

    question: its text. trunk: question and blocks. Without blocks a chat model's question and what
    opens the assistant's turn are one text, all of it in the trunk: a token may span them.
    closing_ids: what ends all blocks together (`framing: once`). suffix_ids: what opens the
    assistant's turn.
    """

    question: str
    trunk: Trunk
    closing_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()

    def prefix_ids(self, after_block: int) -> tuple[int, ...]:
        """Return the tokens that are fed between block `after_block` and the answer."""
        return (*(self.closing_ids if after_block else ()), *self.suffix_ids)

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens after which the answer is decoded."""
        return (*self.trunk.ids, *self.prefix_ids(self.trunk.num_blocks))


def add_memory_tokens(tokenizer: PreTrainedTokenizerBase, memory: MemoryConfig) -> list[int]:
    """Add the three memory tokens as special tokens (nothing happens to those already there).

    Returns:
        Their ids: start, memory, end.
    """
    vocabulary = tokenizer.get_vocab()
    new = [s for s in memory.token_strings if s not in vocabulary]
    for string in memory.token_strings:
        if string in vocabulary and not _is_special(tokenizer, vocabulary[string]):
            raise ConfigError(
                f"the memory token {string!r} is an ordinary word of this tokenizer; choose another"
            )
    if new:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": new}, replace_extra_special_tokens=False
        )
    return memory_token_ids(tokenizer, memory)


def fix_date(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a chat template that writes today's date write `FIXED_DATE` always: prompts, and all that
    is trained, answered and measured with them, must not depend on the day.
    """
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = _TODAY.sub(
            lambda call: json.dumps(FIXED_DATE.strftime(call[2])), tokenizer.chat_template
        )


def _is_special(tokenizer: PreTrainedTokenizerBase, token_id: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(token_id)
    return added is not None and added.special


def memory_token_ids(tokenizer: PreTrainedTokenizerBase, memory: MemoryConfig) -> list[int]:
    """Ids of start, memory and end token.

    Raises:
        ConfigError: the tokenizer lacks one.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [s for s in memory.token_strings if s not in vocabulary]
    if missing:
        raise ConfigError(
            f"the tokenizer has no memory token {missing[0]!r}; was this model trained with RiM?"
        )
    return [vocabulary[s] for s in memory.token_strings]


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
        #: What ends an answer: a base that was not trained here may end its turns otherwise.
        self.stop_ids = frozenset({self.stop_id})
        pad_id = tokenizer.pad_token_id
        self.pad_id: int = pad_id if isinstance(pad_id, int) else self.stop_id
        self.is_chat = prompt_format.templates.chat == "auto" and bool(tokenizer.chat_template)
        self.bos_ids = self._find_bos()
        # Steps and answers recur a lot, and a tokenizer call costs more than a look-up. Questions
        # are long and do not: kept, they would be the largest thing in memory.
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

    def prompt(self, question: str, blocks: int) -> Prompt:
        """Encode a question with `blocks` memory blocks: the beginning of every training sequence,
        and what an answer is decoded after.
        """
        question_ids, suffix_ids = self.question(question, bool(blocks))
        trunk = Trunk.build(question_ids, self.block_ids, blocks, self.opening_ids)
        return Prompt(question, trunk, self.closing_ids, suffix_ids)

    def question(self, question: str, has_blocks: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids before the blocks, and ids between blocks and answer."""
        if self.is_chat:
            return self._chat_question(question, has_blocks)
        text = self.format.templates.question_text(question)
        return (*self.bos_ids, *self._encode_text(text)), ()

    def _chat_question(
        self, question: str, has_blocks: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
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
        if not has_blocks:
            return self._rendered_ids(before + after), ()
        # What follows the blocks follows a control token, which some tokenizers heed.
        anchored_ids = self._rendered_ids(self.format.memory.end_token + after)
        end = anchored_ids.index(self.memory_ids[-1])
        return self._rendered_ids(before), anchored_ids[end + 1 :]

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
        strings = {t.content for t in added if t.special and len(t.content.strip()) > 1}
        # By text as well: an export must not depend on the order of a set.
        return sorted(strings, key=lambda string: (-len(string), string))

    def prompt_ids(self, question: str, blocks: int) -> list[int]:
        """All tokens after which the answer is decoded, as a list."""
        return list(self.prompt(question, blocks).ids)

    def answer_has_opening(self, prompt: Prompt) -> bool:
        """Whether tokens of its own stand between the last block and the answer proper: what opens
        the assistant's turn, what closes the blocks, or a marker ("####"). Where nothing does, the
        last token of a block, which sees the question, predicts the answer's first token.
        """
        return bool(prompt.prefix_ids(prompt.trunk.num_blocks)) or self.num_marker_tokens > 0

    def step_ids(self, step: str) -> tuple[int, ...]:
        """A step as a read-out's target, stop token included."""
        return self._target(self.format.templates.step_text(step))

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """An answer as a read-out's target, stop token included."""
        return self._target(self.format.templates.answer_text(answer))

    def solution_ids(self, steps: Sequence[str], answer: str) -> tuple[int, ...]:
        """A worked solution, steps and answer, as one target, stop token included."""
        return self._target(self.format.templates.solution_text(steps, answer))

    @property
    def begins_at_a_latent(self) -> bool:
        """Whether a fed-back latent itself predicts the answer's first token: nothing closes the
        blocks, nothing opens the answer.
        """
        framed = self.format.memory.framing != "none"
        opened = self.is_chat or self.num_marker_tokens > 0
        return self.format.feedback != "none" and not framed and not opened

    def tokens_before_answer(
        self, solution_ids: Sequence[int], answer_ids: Sequence[int], example: Example
    ) -> int:
        """How many tokens of a solution come before its answer.

        Raises:
            DataError: the answer's tokens do not end the solution's, because some merge with what
                stands before them.
        """
        before = len(solution_ids) - len(answer_ids)
        if before < 0 or tuple(solution_ids[before:]) != tuple(answer_ids):
            raise DataError(
                f"{example.origin or repr(example.question)}: this tokenizer merges the beginning "
                f"of the answer {example.answer!r} with the step before it; choose a "
                "templates.step_separator or templates.answer that keeps them apart"
            )
        return before

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
