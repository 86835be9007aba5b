"""One protocol on one run, with all that its result has to state: what `rim controls --protocol`
does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from rim.config import ConfigError, DataSource
from rim.config.recipe_yaml import load_recipe
from rim.data.examples import Example
from rim.data.sources import data_hash, task_source
from rim.evaluate.protocols import content, interchange, transplant
from rim.evaluate.protocols.asking import Asking
from rim.evaluate.protocols.pairs import choose_pairs, closed_set, read_questions
from rim.infer.reasoner import Reasoner
from rim.results import environment

ProtocolName = Literal["transplant", "interchange", "content"]

#: Pairs of questions, or under `content` questions.
PAIRS = 240


def task_of(run: Path, name: str | None = None, knobs: Sequence[str] = ()) -> DataSource:
    """The task that data belong to: by name and knobs, else the one that the run was trained on.

    Raises:
        ConfigError: neither says it.
    """
    if name is not None:
        return task_source(name, {}, knobs)
    source = trained_task(run)
    if source is None:
        raise ConfigError(
            f"{run} does not say which generated task it was trained on: name it (--task), with "
            "the knobs that differ from its defaults (--set)"
        )
    return source


def trained_task(run: Path) -> DataSource | None:
    """The generated task that a run was trained on; None where it was another data set, or nobody
    knows.
    """
    recipe = run / "config.yaml"
    source = load_recipe(recipe).data.train if recipe.exists() else None
    return None if source is None or source.task is None else source


def run_protocol(
    protocol: ProtocolName,
    reasoner: Reasoner,
    examples: Sequence[Example],
    source: DataSource,
    *,
    blocks: int | None = None,
    pairs: int = PAIRS,
    seed: int = 0,
    batch_size: int = 256,
    progress: Callable[..., None] = lambda done, total: None,
) -> dict[str, Any]:
    """A protocol's result as JSON has it.

    Args:
        examples: questions of the task `source`, of which the pairs are made.
        blocks: as in training if left out.
        progress: hears of every round that is done, and of how many there are (`total`).

    Raises:
        ConfigError: a model without blocks, a task without known intermediate values.
        DataError: data of another task, or too few for so many pairs.
    """
    count = reasoner.encoder.format.blocks_to("intervene on", blocks)
    assert source.task is not None
    known = read_questions(source.format, source.task, examples)
    asking = Asking(reasoner, count, closed_set(known), batch_size)
    total = {
        "content": content.num_rounds,
        "interchange": interchange.num_rounds,
        "transplant": transplant.num_rounds,
    }[protocol](asking)

    options: dict[str, Any] = {"seed": seed, "progress": functools.partial(progress, total=total)}
    if protocol == "content":
        result = content.run_content(asking, known[:pairs], source.format, source.task, **options)
    else:
        chosen = choose_pairs(known, reasoner.encoder, pairs, seed)
        transplants = protocol == "transplant"
        run = transplant.run_transplant if transplants else interchange.run_interchange
        result = run(asking, chosen, **options)
    return {
        "protocol": protocol,
        "task": {"name": source.format, **source.task.model_dump(mode="json")},
        "data": {"examples": len(examples), "hash": data_hash(examples)},
        "settings": {"blocks": count, "pairs": pairs, "seed": seed, "answers": asking.answers},
        **result,
        "environment": environment(),
    }


def lines_of(result: dict[str, Any]) -> list[str]:
    """What a result says, one sentence a line: of a transplant who decides, the verdicts, and the
    value of each step.
    """
    lines = [result["decides"]["line"]] if "decides" in result else []
    lines += [part["line"] for part in result.get("verdicts") or result["steps"]]
    lines += [v["step_line"] for v in result.get("verdicts") or [] if "step_line" in v]
    return lines or ["no step has enough pairs to say anything: ask for more pairs"]
