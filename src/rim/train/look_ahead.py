"""What a person should hear before the first step: not wrong, but seldom meant."""

from __future__ import annotations

import heapq
import itertools
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rim.config import Recipe, StageConfig
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.data.sources import solutions_in_one_step
from rim.infer.answers import grade
from rim.methods import METHODS
from rim.models.folder import FORMAT_FILE
from rim.train.memory import training_device
from rim.train.refusals import refuse_too_long

if TYPE_CHECKING:
    from rim.train.curriculum import Curriculum

#: Examples, the longest by characters, that every stage is tried on before the first one begins.
LONGEST = 20
#: Load by processor from which a machine is called busy.
BUSY = 1.5
#: Formats whose steps may stand in one string.
_BY_COLUMNS = ("auto", "jsonl", "csv", "parquet", "hub")
#: Share of the training examples that a smaller number of blocks than the largest covers.
MOST = 0.99


def look_ahead(
    curriculum: Curriculum, model: Any, encoder: PromptEncoder, examples: Sequence[Example]
) -> list[str]:
    """Sentences about a recipe, its data and its base.

    Raises:
        DataError: an example that a later stage has no positions for.
    """
    recipe = curriculum.recipe
    longest = longest_examples(examples, LONGEST)
    for stage in recipe.stages:
        if stage.objective == "answer" or all(e.steps for e in longest):
            layouts = curriculum.lay_out(longest, stage, encoder)
            refuse_too_long(longest, [layout.max_position for layout in layouts], model)
    sentences = [
        _about_the_machine(recipe.stages[0]),
        _about_chat(recipe, encoder),
        _about_prose(recipe, examples),
    ]
    sentences.append(_about_answers(encoder, examples))
    sentences += [_about_blocks(recipe, stage, examples) for stage in recipe.stages]
    return [sentence for sentence in sentences if sentence]


def _about_the_machine(stage: StageConfig) -> str | None:
    """Threads that will wait for each other; without a GPU they are what trains."""
    threads, processors = torch.get_num_threads(), os.cpu_count() or 1
    if threads == 1 or not hasattr(os, "getloadavg") or training_device(stage).type != "cpu":
        return None
    load, _, _ = os.getloadavg()
    if load < BUSY * processors:
        return None
    return (
        f"this machine is busy (load {load:.0f} on {processors} processors), and the {threads} "
        "threads of a training wait for each other there; one is often faster: OMP_NUM_THREADS=1"
    )


def longest_examples(examples: Sequence[Example], count: int) -> list[Example]:
    def characters(example: Example) -> int:
        return len(example.question) + sum(map(len, example.steps)) + len(example.answer)

    return heapq.nlargest(count, examples, key=characters)


def _about_chat(recipe: Recipe, encoder: PromptEncoder) -> str | None:
    """A base's chat template: missing, or one that thinks."""
    base = recipe.model.base
    if base is None or recipe.templates.chat == "never":
        return None
    if any((Path(base) / place / FORMAT_FILE).exists() for place in (".", "model")):
        return None  # of an earlier run: that was said then
    if not encoder.is_chat:
        return (
            f"{base} has no chat template, so it is probably a base model without instruction "
            "tuning: questions are written as plain text (templates.question)"
        )
    opening = encoder.tokenizer.decode(list(encoder.question("?", True)[1]))
    if "<think>" in opening and "</think>" not in opening:
        return (
            f"the chat template of {base} opens a thought (<think>) before the answer, so servers "
            "will take the answer for a thought; set templates.chat: never, or take a base that "
            "does not think"
        )
    if "strftime_now(" in str(encoder.tokenizer.chat_template):
        return (
            f"the chat template of {base} writes today's date (strftime_now) in a way that could "
            "not be fixed, so prompts, resumed training and answers differ from day to day; put a "
            "template with a fixed date into the base's folder, or set templates.chat: never"
        )
    if "enable_thinking" in str(encoder.tokenizer.chat_template):
        return (
            f"the chat template of {base} has a thinking mode (enable_thinking). Training leaves "
            "it at its default and teaches to answer at once; leave it there when you serve, too"
        )
    return None


def _about_prose(recipe: Recipe, examples: Sequence[Example]) -> str | None:
    """Solutions that nobody has parted into steps."""
    if all(stage.objective != "steps" for stage in recipe.stages):
        return None
    first = list(itertools.islice(examples, 1000))  # of a large file
    if solutions_in_one_step(first):
        return (
            "most solutions are one step of several sentences, so a block has to say all of it; "
            "`rim data split-steps` parts prose into steps"
        )
    source = recipe.data.train
    named = source.task is None and source.records is None and source.format in _BY_COLUMNS
    if named and recipe.memory.blocks > 2 and max((len(e.steps) for e in first), default=0) == 1:
        return (
            f"no solution has more than one step, and there are {recipe.memory.blocks} blocks; "
            "data.train.step_separator says what parts steps that stand in one string"
        )
    return None


def _about_answers(encoder: PromptEncoder, examples: Sequence[Example]) -> str | None:
    """Answers that count as wrong even if a model says them."""
    templates = encoder.format.templates
    first = list(itertools.islice(examples, 1000))
    lost = [e for e in first if not grade(templates.answer_text(e.answer), e, encoder)]
    if not lost:
        return None
    return (
        f"{len(lost)} of the first {len(first):,} answers can never be counted as right, such as "
        f"{lost[0].answer!r} ({lost[0].origin}): written by templates.answer "
        f"{templates.answer!r} it cannot be told where they begin and end. An answer may hold "
        "neither the text before it, nor templates.step_separator, nor several lines"
    )


def _about_blocks(recipe: Recipe, stage: StageConfig, examples: Sequence[Example]) -> str | None:
    """Examples with more steps than the blocks have room for."""
    if stage.objective != "steps":
        return None
    method, blocks = METHODS[recipe.method], recipe.memory.blocks
    needed = Counter(method.blocks_needed(len(e.steps), stage) for e in examples)
    over = sum(times for count, times in needed.items() if count > blocks)
    if not over:
        return None
    number, largest = needed.total(), max(needed)
    covered = itertools.accumulate(times for _, times in sorted(needed.items()))
    pairs = zip(sorted(needed), covered, strict=True)
    most = next(count for count, so_far in pairs if so_far >= math.ceil(MOST * number))
    enough = f"{largest} would be enough for all"
    if blocks < most < largest:
        enough += f", {most} for {MOST:.0%} of them"
    return (
        f"{over:,} of {number:,} training examples ({over / number:.1%}) have more steps "
        f"than memory.blocks: {blocks} has room for in stage {stage.name!r} (alignment: "
        f"{stage.alignment}); {enough}"
    )
