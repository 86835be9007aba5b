"""`rim train --dry-run`: what a recipe would do, from some real steps on a throw-away copy.

Nothing is written but what is removed again, and the caller's random numbers stay as they are.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import set_seed

from rim.config import ConfigError, Recipe
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.data.training import load_training_data
from rim.methods import METHODS
from rim.models.lora import count_parameters
from rim.report.progress import progress_bar
from rim.train.arguments import check_trainer_settings
from rim.train.curriculum import Curriculum
from rim.train.look_ahead import longest_examples, look_ahead
from rim.train.memory import free_memory, peak_memory, training_device
from rim.train.refusals import (
    refuse_flex_without_gpu,
)
from rim.train.run_folder import RunFolder
from rim.train.seeds import stage_seed
from rim.train.stage_trial import StageTrial

#: Examples whose tokens are counted, drawn at random, and the longest ones by characters.
COUNTED, LONGEST = 2000, 50
#: Validation questions of a trial.
ASKED = 16
#: Checkpoints that lie on the disk at once: the best, the newest, and the one being written.
CHECKPOINTS = 3


def dry_run(
    recipe: Recipe,
    *,
    console: Console | None = None,
    found: Callable[[str, dict[str, Any]], None] = lambda what, part: None,
) -> dict[str, Any]:
    """Tokens, steps against blocks, parameters, time and memory of a recipe's training, and what it
    would write.

    Time is measured on this machine for every stage, with the untrained model; validation counts
    with answers of the full `max_new_tokens`, which a trained model seldom writes: an upper bound.

    Args:
        found: hears of "data" (name, data, steps, parameters) and every "stage" as soon as they are
            known: a trial of a large model takes minutes.

    Raises:
        ConfigError, DataError: what training would refuse before its first step.
        TrainingMemoryError: it would not fit into memory.
    """
    if any(stage.trainer.get("fsdp") for stage in recipe.stages):
        raise ConfigError(
            "a dry run measures one process that has the whole model; leave fsdp out for it"
        )
    check_trainer_settings(recipe.stages)
    refuse_flex_without_gpu(recipe)
    recipe = recipe.model_copy(update={"report_to": ()})
    train_set, validation = load_training_data(recipe.data, recipe.seed)
    counts = {"train": len(train_set), "validation": len(validation)}
    parts = 1 + StageTrial.PARTS * len(recipe.stages)
    with _undisturbed(), tempfile.TemporaryDirectory() as folder, _telling(console, parts) as tell:
        run = RunFolder(Path(folder))
        curriculum = Curriculum(recipe, run, Console(quiet=True))  # the bar is all that is shown
        tell("loading the model")
        set_seed(stage_seed(recipe.seed, 0))
        model, tokenizer = curriculum.starting_model(recipe.stages[0], None, train_set)
        encoder = PromptEncoder(tokenizer, recipe.prompt_format)
        if not recipe.model.takes_our_mask:
            model.to(training_device(recipe.stages[0]))
        notes = look_ahead(curriculum, model, encoder, train_set)
        sample = _sample(train_set)
        result: dict[str, Any] = {
            "name": recipe.name,
            "method": recipe.method,
            "data": counts | {"tokens": _tokens(encoder, sample), "counted": len(sample)},
            "steps": _steps(recipe, train_set),
            "parameters": count_parameters(model),
        }
        found("data", result)
        asked = list(validation[: min(ASKED, recipe.validation.num_examples)])
        stages = []
        for index, stage in enumerate(recipe.stages):
            trial = StageTrial(curriculum, index, stage, model, encoder, tell)
            stages.append(trial.measure(sample, asked, counts))
            found("stage", stages[-1])
            encoder = trial.encoder
        device = training_device(recipe.stages[0])
        result |= {
            "stages": stages,
            "seconds": sum(stage["seconds"] for stage in stages),
            "memory": {
                "device": str(device),
                "peak": peak_memory(device),
                "free": free_memory(device),
            },
            "writes": _writes(recipe, model),
        }
    return result | {"notes": notes + _about_writing(recipe, result["writes"])}


@contextlib.contextmanager
def _telling(console: Console | None, parts: int) -> Generator[Callable[[str], None]]:
    """Yield a callback that advances a bar to its next part and names it."""
    with progress_bar(console or Console(quiet=True)) as bar:
        bar.live.transient = True
        task = bar.add_task("dry run", total=parts, note="")
        begun = itertools.count()
        yield lambda what: bar.update(task, completed=next(begun), note=what)


@contextlib.contextmanager
def _undisturbed() -> Generator[None]:
    """Restore the caller's random numbers of all three kinds, as if nothing had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _sample(examples: Sequence[Example]) -> list[Example]:
    """The longest examples and others drawn at random, each once; all where there are few."""
    if len(examples) <= COUNTED:
        return list(examples)
    longest = longest_examples(examples, LONGEST)
    drawn = dict.fromkeys(random.Random(0).sample(range(len(examples)), COUNTED))
    found = {number: example for number, example in enumerate(examples) if number in drawn}
    chosen = set(longest)
    return longest + [found[number] for number in drawn if found[number] not in chosen]


def _tokens(encoder: PromptEncoder, examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    def spread(lengths: list[int]) -> dict[str, float]:
        return {"median": statistics.median(lengths), "longest": max(lengths)}

    steps = [len(encoder.step_ids(step)) for e in examples for step in e.steps]
    return {
        "question": spread([len(encoder.question(e.question, False)[0]) for e in examples]),
        **({"step": spread(steps)} if steps else {}),
        "answer": spread([len(encoder.answer_ids(e.answer)) for e in examples]),
    }


def _steps(recipe: Recipe, examples: Sequence[Example]) -> dict[str, Any]:
    """How many examples have so many steps, and the most steps that the blocks have room for."""
    histogram = Counter(len(example.steps) for example in examples)
    stage = next((stage for stage in recipe.stages if stage.objective == "steps"), None)
    found: dict[str, Any] = {"histogram": dict(sorted(histogram.items())), "room": None}
    if stage is not None:
        blocks, method = recipe.memory.blocks, METHODS[recipe.method]
        fitting = [n for n in range(blocks + 1) if method.blocks_needed(n, stage) <= blocks]
        found |= {"blocks": blocks, "room": max(fitting)}
    return found


def _writes(recipe: Recipe, model: Any) -> dict[str, Any]:
    """The run folder, and bytes of what will lie in it."""
    folder = Path(recipe.runs_dir) / recipe.name
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    saved = trained if recipe.model.tuning == "lora" else sum(p.nbytes for p in model.parameters())
    above = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return {
        "folder": str(folder),
        "exists": folder.exists(),
        "model": saved,
        "stages": saved * len(recipe.stages),
        "checkpoints": CHECKPOINTS * (saved + 2 * trained),
        "free": shutil.disk_usage(above).free,
    }


def _about_writing(recipe: Recipe, writes: dict[str, Any]) -> list[str]:
    notes = []
    if writes["exists"]:
        notes.append(f"{writes['folder']} exists: choose another name with --set name=...")
    needed = sum(writes[key] for key in ("model", "stages", "checkpoints"))
    if needed > writes["free"]:
        notes.append(
            f"the disk of {recipe.runs_dir} has {writes['free'] / 1e9:.1f} GB free, and up to "
            f"{needed / 1e9:.1f} GB will be written"
        )
    return notes
