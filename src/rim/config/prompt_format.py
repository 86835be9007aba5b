"""Settings of the tokens around a question: method, memory blocks, templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from rim.config.base import ConfigError, PositiveInt, Settings
from rim.methods import METHODS


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(METHODS.unknown(name))
    return name


#: A method's name, checked against the registry `rim.methods.METHODS`.
MethodName = Annotated[str, AfterValidator(_known_method)]


class MemoryConfig(Settings):
    """Memory blocks: K blocks of a start token, M memory tokens and an end token.

    framing: "each" block has its start and end token (RiM); "once": one start token, the memory
    tokens of all blocks, one end token (the latents of Coconut, CODI and LOTUS); "none": memory
    tokens only (pause tokens).
    passes: how often the model runs over the blocks. From the second pass on, each memory token's
    input is its embedding plus its last hidden state of the pass before (LOTUS; a variant for RiM).
    feedback_scale: hidden states are fed back as they are ("none", as in the papers), or brought to
    the size of the token "embeddings" first (our variant): a final norm makes states of size 1,
    beside which the embeddings, and what layers add to them, may be small.
    """

    blocks: PositiveInt = 8
    tokens: PositiveInt = 2
    framing: Literal["each", "once", "none"] = "each"
    passes: PositiveInt = 1
    feedback_scale: Literal["none", "embeddings"] = "none"
    start_token: str = "<|mem_start|>"
    memory_token: str = "<|mem|>"
    end_token: str = "<|mem_end|>"
    attention: Literal["causal", "bidirectional"] = "causal"
    readouts_see_question: bool = True

    @property
    def token_strings(self) -> list[str]:
        """Start, memory and end token."""
        return [self.start_token, self.memory_token, self.end_token]

    @model_validator(mode="after")
    def _distinct_tokens(self) -> Self:
        strings = self.token_strings
        if len(set(strings)) < 3 or not all(s and s == s.strip() for s in strings):
            raise ValueError(
                "start_token, memory_token and end_token must be three different non-empty "
                f"strings without blanks around them, got {strings}"
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

    @property
    def answer_marker(self) -> str:
        """Literal text that stands before an answer (for the answer parser)."""
        return self.answer.partition("{answer}")[0]

    @property
    def answer_tail(self) -> str:
        """Literal text that stands behind it."""
        return self.answer.partition("{answer}")[2]

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
    """All that fixes the tokens around a question; saved beside a trained model.

    readouts: how they run, as `model.readouts` decided it: all of an example in one pass
    ("parallel"), or each as a row of its own ("separate").
    """

    method: MethodName = "rim"
    memory: MemoryConfig = MemoryConfig()
    templates: TemplatesConfig = TemplatesConfig()
    readouts: Literal["parallel", "separate"] = "parallel"

    @model_validator(mode="after")
    def _blocks_fit_method(self) -> Self:
        method, memory = METHODS[self.method], self.memory
        if memory.passes > 1 and not method.may_loop:
            raise ValueError(f"memory.passes must be 1 for method {self.method!r}")
        method.check(memory)
        if memory.feedback_scale != "none" and self.feedback == "none":
            raise ValueError(
                "memory.feedback_scale is for hidden states that are fed back; with method "
                f"{self.method!r} and these passes there are none"
            )
        if self.feedback != "none" and memory.attention != "causal":
            raise ValueError("blocks that hidden states are fed back to need attention: causal")
        return self

    @property
    def parallel_only(self) -> str | None:
        """The setting that separate read-outs cannot express, if there is one: they are ordinary
        causal sequences.
        """
        if self.memory.attention != "causal":
            return f"memory.attention: {self.memory.attention}"
        if not self.memory.readouts_see_question:
            return "memory.readouts_see_question: false"
        if self.feedback != "none":
            return f"hidden states that are fed back (method {self.method})"
        return None

    @property
    def trained_blocks(self) -> int:
        """Blocks in a prompt by default: K for a memory-block method, none for the others."""
        return self.memory.blocks if METHODS[self.method].has_blocks else 0

    def blocks_to(self, do: str, blocks: int | None = None) -> int:
        """How many blocks a model is asked with in order to `do` something to them: as in training
        if not said.

        Raises:
            ConfigError: there are none.
        """
        count = self.trained_blocks if blocks is None else blocks
        if not self.trained_blocks:
            raise ConfigError(f"method {self.method!r} has no memory blocks to {do}")
        if count < 1:
            raise ConfigError(f"there are no blocks to {do} if it is asked with {count}")
        return count

    @property
    def feedback(self) -> Literal["none", "chain", "loop"]:
        """Where memory tokens get their input from, `rim.methods.base.Method.feedback`."""
        return METHODS[self.method].feedback(self.memory)
