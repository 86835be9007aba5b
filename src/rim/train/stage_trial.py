"""Some steps of one stage and one small validation: what `rim train --dry-run` measures."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from rim.config import StageConfig
from rim.core.layout import Layout
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.train.arguments import training_arguments, weights_type
from rim.train.curriculum import Curriculum
from rim.train.memory import find_micro_batch
from rim.train.parallel_or_separate import decide_readouts
from rim.train.refusals import refuse_answers_without_opening, refuse_too_long
from rim.train.trainer import ReadoutTrainer
from rim.train.validation import validation_score

#: Optimizer steps of a trial, the first left out of the time; fewer if that takes too long.
STEPS, ENOUGH_SECONDS = 4, 60
#: Tokens of a trial's answers: the time of longer ones is that of the first and of each more.
FEW_TOKENS, TOKENS = 2, 18


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


class StageTrial:
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
            model=self.model,
            args=arguments,
            train_dataset=drawn,
            eval_dataset=questions,
            callbacks=[clock],
        )
        self.tell(f"{short.name}: {STEPS} training steps")
        trainer.train()
        self.tell(f"{short.name}: {len(asked)} validation questions")
        return clock.a_step, self._answering(trainer, asked, questions) / len(asked)

    def _answering(
        self, trainer: ReadoutTrainer, asked: list[Example], questions: list[Layout]
    ) -> float:
        """Seconds of a validation with the longest answers, from two with short ones: an untrained
        model never ends its answer, and large ones would take minutes.
        """
        longest, seconds = self.recipe.validation.max_new_tokens, []
        few, more = min(FEW_TOKENS, longest), min(TOKENS, longest)
        for count in (few, more):
            settings = self.recipe.validation.model_copy(update={"max_new_tokens": count})
            recipe = self.recipe.model_copy(update={"validation": settings})
            trainer.score = validation_score(recipe, self.encoder, asked, questions)
            began = time.perf_counter()
            trainer.evaluate()
            seconds.append(time.perf_counter() - began)
        a_token = max(0.0, seconds[1] - seconds[0]) / max(1, more - few)
        return seconds[1] + a_token * (longest - more)
