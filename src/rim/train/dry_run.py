"""`rim train --dry-run`: what a recipe would do, from some real steps on a throw-away copy.

Nothing is written but what is removed again, and the caller's random numbers stay as they are.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from rim.config import ConfigError, Recipe, StageConfig
from rim.core.layout import Layout
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.data.training import load_training_data
from rim.methods import METHODS
from rim.models.lora import count_parameters
from rim.report.progress import progress_bar
from rim.train.arguments import check_trainer_settings, training_arguments, weights_type
from rim.train.curriculum import Curriculum
from rim.train.look_ahead import longest_examples, look_ahead
from rim.train.memory import find_micro_batch, free_memory, peak_memory, training_device
from rim.train.parallel_or_separate import decide_readouts
from rim.train.refusals import (
    refuse_answers_without_opening,
    refuse_flex_without_gpu,
    refuse_too_long,
)
from rim.train.run_folder import RunFolder
from rim.train.seeds import stage_seed
from rim.train.trainer import ReadoutTrainer
from rim.train.validation import validation_score

#: Examples whose tokens are counted, drawn at random, and the longest ones by characters.
COUNTED, LONGEST = 2000, 50
#: Optimizer steps of a trial, the first left out of the time; fewer if that takes too long.
STEPS, ENOUGH_SECONDS = 4, 60
#: Validation questions of a trial.
ASKED = 16
#: Checkpoints that lie on the disk at once: the best, the newest, and the one being written.
CHECKPOINTS = 3


def dry_run(recipe: Recipe, *, console: Console | None = None) -> dict[str, Any]:
    """Tokens, steps against blocks, parameters, time and memory of a recipe's training, and what it
    would write.

    Time is measured on this machine for every stage, with the untrained model; validation counts
    with answers of the full `max_new_tokens`, which a trained model seldom writes: an upper bound.

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
    parts = 1 + _Trial.PARTS * len(recipe.stages)
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
        asked = list(validation[: min(ASKED, recipe.validation.num_examples)])
        stages = []
        for index, stage in enumerate(recipe.stages):
            trial = _Trial(curriculum, index, stage, model, encoder, tell)
            stages.append(trial.measure(sample, asked, counts))
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


class _Clock(TrainerCallback):
    """Seconds of every optimizer step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._began)
        if sum(self.seconds) > ENOUGH_SECONDS:
            control.should_training_stop = True

    @property
    def a_step(self) -> float:
        return statistics.median(self.seconds[1:] or self.seconds)


class _Trial:
    """Some steps of one stage and one small validation."""

    #: What `tell` hears of.
    PARTS = 4

    def __init__(
        self,
        curriculum: Curriculum,
        index: int,
        stage: StageConfig,
        model: Any,
        encoder: PromptEncoder,
        tell: Callable[[str], None],
    ):
        self.tell = tell
        self.curriculum, self.recipe = curriculum, curriculum.recipe
        self.index, self.stage, self.model, self.encoder = index, stage, model, encoder

    def measure(
        self, sample: list[Example], asked: list[Example], counts: dict[str, int]
    ) -> dict[str, Any]:
        stage, recipe = self.stage, self.recipe
        self.tell(f"{stage.name}: which way its read-outs run")
        refuse_answers_without_opening(stage, self.encoder, sample[0])
        layouts = self._lay_out(sample)
        if self.encoder.format.readouts == "parallel":
            decision = decide_readouts(recipe, self.model, self.encoder, sample, layouts)
            prompt_format = recipe.prompt_format.model_copy(update={"readouts": decision.readouts})
            self.encoder = PromptEncoder(self.encoder.tokenizer, prompt_format)
        micro = stage.micro_batch_size
        self.tell(f"{stage.name}: how many examples fit")
        if micro == "auto":
            micro = find_micro_batch(stage, self.model, self.encoder, layouts).micro_batch_size
        a_step, a_question = self._time(micro, layouts, asked)
        steps = stage.optimizer_steps(counts["train"])
        validations = math.ceil(steps / stage.validation_interval(counts["train"]))
        a_validation = a_question * min(recipe.validation.num_examples, counts["validation"])
        return {
            "name": stage.name,
            "objective": stage.objective,
            "steps": steps,
            "patience": stage.patience,
            "handed_on": self.index > 0
            and recipe.stages[self.index - 1].unused_steps == "next_stage",
            "batch_size": stage.batch_size,
            "micro_batch_size": micro,
            "readouts": self.encoder.format.readouts,
            "tokens_an_example": statistics.fmean(len(x.fields_TF) for x in layouts),
            "longest_example": max(len(x.fields_TF) for x in layouts),
            "seconds_a_step": a_step,
            "validations": validations,
            "seconds_a_validation": a_validation,
            "seconds": steps * a_step + validations * a_validation,
        }

    def _lay_out(self, examples: list[Example]) -> list[Layout]:
        layouts = list(self.curriculum.lay_out(examples, self.stage, self.encoder))
        refuse_too_long(examples, [x.max_position for x in layouts], self.model)
        return layouts

    def _time(self, micro: int, layouts: list[Layout], asked: list[Example]) -> tuple[float, float]:
        """Seconds of an optimizer step, and of validating one question."""
        changes = {"max_steps": STEPS, "epochs": None, "patience": None, "micro_batch_size": micro}
        short = self.stage.model_copy(update=changes)
        folder = self.curriculum.run.path
        arguments = training_arguments(
            self.recipe, short, self.index, folder, len(layouts), weights=weights_type(self.model)
        )
        arguments.eval_strategy, arguments.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
        arguments.load_best_model_at_end = False
        clock = _Clock()
        questions = self._lay_out(asked)
        # The longest come first in a sample; a run of any length meets them in their turn.
        drawn = random.Random(0).sample(layouts, min(len(layouts), STEPS * short.batch_size))
        trainer = ReadoutTrainer(
            stage=short,
            encoder=self.encoder,
            score=validation_score(self.recipe, self.encoder, asked, questions),
            model=self.model,
            args=arguments,
            train_dataset=drawn,
            eval_dataset=questions,
            callbacks=[clock],
        )
        self.tell(f"{short.name}: {STEPS} training steps")
        trainer.train()
        self.tell(f"{short.name}: {len(asked)} validation questions")
        began = time.perf_counter()
        trainer.evaluate()
        return clock.a_step, (time.perf_counter() - began) / len(asked)


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
