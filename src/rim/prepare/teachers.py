"""What writes chains of thought: a server of chat completions, or a model in this process.

A teacher is an engine of `rim.deploy.answer.job`. Its row for a question is `{"samples": [...]}`,
each with the text as it came, whether it ended by itself, and its number of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rim.config import ConfigError, ModelConfig, PromptFormat, TemplatesConfig
from rim.deploy.answer.engines import (
    ServerEngine,
    answer_chunk,
    is_servers_fault,
    weights_hash,
)
from rim.deploy.answer.job import Chunk, Row
from rim.infer.sampling import Sampling
from rim.prepare.splitting import MARKER, By, split_solution

if TYPE_CHECKING:
    from rim.deploy.serve.client import Client
    from rim.infer.reasoner import Reasoner

PROMPT = f"""Solve the problem step by step. Write every step on a line of its own: short, one \
thought or one calculation a line, no headings, no lists. Then write "{MARKER}" and behind it the \
answer alone on the last line.

Problem: {{question}}"""

#: Strings that chat models read as control tokens. A server does not say which ones its model has.
_CONTROL = re.compile(
    r"<\|[^<>|\s]{1,60}\|?>|<[^<>|\s]{1,60}\|>|<\uff5c[^<>\uff5c]{1,60}\uff5c>|<</?SYS>>|"
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_(?:CALLS|CONTENT|RESULTS)|THINK|IMG)\]|"
    r"</?(?:s|bos|eos|pad|unk|think|start_of_turn|end_of_turn|end_of_utterance|start_of_image|"
    r"tool_call|tool_response)>",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class TeacherSettings:
    """How a teacher is asked, whoever it is.

    samples: chains of thought for a question. stop_at_first: none after the first that is right.
    """

    samples: int = 4
    stop_at_first: bool = False
    max_new_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int = 0
    prompt: str = PROMPT

    def __post_init__(self) -> None:
        if "{question}" not in self.prompt:
            raise ConfigError("the teacher's prompt must contain {question}")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError("several samples at temperature 0 are all the same: raise it")

    def text(self, question: str) -> str:
        """The message to a server, in which no part of the question is a control token."""
        return self.prompt.replace("{question}", harmless(question))


def harmless(text: str) -> str:
    """A text with a space in every string that a chat model could read as a control token."""
    while _CONTROL.search(text):
        text = _CONTROL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
    return text


class ServerTeacher(ServerEngine):
    """A server of chat completions. Several questions are under way at a time, the samples of one
    come one after the other.

    Args:
        golds: the answer of every question, for `stop_at_first`.
    """

    def __init__(
        self,
        client: Client,
        asking: TeacherSettings,
        golds: Mapping[str, str],
        *,
        concurrency: int = 8,
        by: By = "auto",
    ):
        super().__init__(client, concurrency=concurrency, **asdict(asking))
        self.asking = asking
        self.golds = golds
        self.by: By = by

    def describe(self) -> dict[str, Any]:
        return super().describe() | _kept_by(self.asking, self.by)

    def _ask(self, chunk: Chunk) -> list[Row]:
        from rim.deploy.serve.client import ServerRefusal

        (question,) = chunk
        asking, samples, trouble = self.asking, [], None
        for number in range(asking.samples):
            try:
                told = self.client.ask(
                    asking.text(question),
                    max_new_tokens=asking.max_new_tokens,
                    temperature=asking.temperature,
                    top_p=asking.top_p,
                    seed=asking.seed + number,
                )
            except ServerRefusal as error:
                # After the client's own retries: another sample would fare no better.
                trouble = error
                break
            samples.append(
                {"text": told.text, "finished": told.finished, "tokens": told.num_tokens}
            )
            if asking.stop_at_first and _right(samples[-1], self.golds[question], self.by):
                break
        if trouble is None:
            return [{"samples": samples}]
        failed = is_servers_fault(trouble)  # before anything else: a wrong key ends the job
        if any(_right(sample, self.golds[question], self.by) for sample in samples):
            return [{"samples": samples}]
        return [{"error": str(trouble), "failed": failed, "samples": samples}]


class LocalTeacher:
    """A model in this process, in batches: all open questions of a chunk, sample by sample.

    Args:
        name: how the model was named, for the record beside the output.
        golds: the answer of every question, for `stop_at_first`.
        by: what parts the steps, for `stop_at_first`.
        weights: a hash of the model, where it has one: samples of two models are not mixed.
        own: a run of ours, which writes its steps and answer as it was trained to.
    """

    answered = False

    def __init__(
        self,
        reasoner: Reasoner,
        name: str,
        asking: TeacherSettings,
        golds: Mapping[str, str],
        *,
        batch_size: int = 16,
        by: By = "auto",
        weights: str | None = None,
        own: bool = False,
    ):
        self.reasoner = reasoner
        self.by: By = by
        self.weights = weights
        self.own = own
        self.name = name
        self.asking = asking
        self.golds = golds
        self.batch_size = batch_size
        self.chunk_size = 2 * batch_size

    def describe(self) -> dict[str, Any]:
        told = {"teacher": self.name, "batch_size": self.batch_size, **asdict(self.asking)}
        told |= {"dtype": str(self.reasoner.model.dtype), "weights": self.weights}
        return told | _kept_by(self.asking, self.by)

    def answer(self, chunks: Iterable[Chunk]) -> Iterator[list[Row]]:
        for chunk in chunks:
            yield self._ask(chunk)

    def _ask(self, chunk: Chunk) -> list[Row]:
        asking = self.asking
        rows: dict[str, Row] = {question: {"samples": []} for question in chunk}
        for number in range(asking.samples):
            asked = [
                q
                for q in chunk
                if "error" not in rows[q]
                and not (
                    asking.stop_at_first
                    and any(_right(sample, self.golds[q], self.by) for sample in rows[q]["samples"])
                )
            ]
            sampling = Sampling(asking.temperature, 0, asking.top_p, 1, asking.seed + number)
            options = {"max_new_tokens": asking.max_new_tokens, "sampling": sampling}
            answers = answer_chunk(self.reasoner, asked, options | {"batch_size": self.batch_size})
            for question, told in zip(asked, answers, strict=True):
                if "error" in told:  # no room for the question, whatever the sample
                    rows[question] = {"error": told["error"]}
                    continue
                text = told["text"]
                if self.own:
                    text = _in_lines(text, told["answer"], self.reasoner.encoder.format.templates)
                sample = {"text": text, "finished": told["finished"]}
                rows[question]["samples"].append(sample | {"tokens": told["num_tokens"]})
        return [rows[question] for question in chunk]


def _kept_by(asking: TeacherSettings, by: By) -> dict[str, str]:
    """Name how steps are parted, if it decides which sample is good enough to stop at."""
    return {"by": by} if asking.stop_at_first and by != "auto" else {}


def _in_lines(text: str, answer: str, templates: TemplatesConfig) -> str:
    """A run's solution as other teachers write one: a step a line, then the answer."""
    marker, separator = templates.answer_marker, templates.step_separator
    body = text.rpartition(marker or separator)[0]
    steps = (step.strip() for step in body.split(separator))
    return "\n".join([*(step for step in steps if step), f"{MARKER} {answer}"])


def _right(sample: Row, gold: str, by: By) -> bool:
    split = split_solution(sample["text"], by)
    return sample["finished"] and bool(split.steps) and split.answers(gold)


def load_teacher(base: str, prompt: str, *, device: str, dtype: str | None = None) -> Reasoner:
    """A model that writes chains of thought: a trained run as it was trained, or any causal
    language model with `prompt` around the question.

    Args:
        base: run folder, model folder, GGUF file, `package:NAME` or hub id.
        dtype: of the weights; of a run as stored if left out, else float32.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from rim.core.tokens import PromptEncoder
    from rim.infer.reasoner import Reasoner, load
    from rim.models.loading import load_base

    if is_run(base):
        return load(base, device=device, dtype=dtype)
    config = ModelConfig.model_validate(
        {"base": base, "tuning": "full", "dtype": dtype or "float32"}
    )
    templates = TemplatesConfig(question=prompt, answer=f"{MARKER} {{answer}}")
    prompt_format = PromptFormat(method="cot", templates=templates)
    model, tokenizer = load_base(config, prompt_format, (), seed=0)
    model.to(device)  # pyrefly: ignore[bad-argument-type]  (its declared self is odd)
    encoder = PromptEncoder(tokenizer, prompt_format)
    # Gemma's and others' turns end with another token than their texts.
    told = getattr(model.generation_config, "eos_token_id", None)
    encoder.stop_ids |= {told} if isinstance(told, int) else set(told or ())
    return Reasoner(model.eval(), encoder)


def hash_of(base: str) -> str | None:
    """A hash of a teacher's weights; None of one on the hub."""
    from rim.models.folder import find_model_dir
    from rim.models.gguf_base import file_hash
    from rim.models.gguf_file import find_gguf

    if is_run(base):
        return weights_hash(find_model_dir(base))
    if file := find_gguf(base):
        return file_hash(file)
    return weights_hash(Path(base)) if Path(base).is_dir() else None


def is_run(base: str) -> bool:
    """Whether a model was trained with RiM, so that it has a prompt of its own."""
    from rim.models.folder import find_model_dir

    try:
        find_model_dir(base)
    except ConfigError:
        return False
    return True
