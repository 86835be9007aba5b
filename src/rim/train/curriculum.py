"""Stages in order: each starts from the best model of the one before, with a fresh optimizer."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from transformers import set_seed

from rim.config import Recipe, StageConfig
from rim.core.layout import Layout, lay_out
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.data.training import load_training_data
from rim.methods import METHODS
from rim.models.folder import read_prompt_format
from rim.models.loading import load_base, load_for_training, load_trained, save_trained
from rim.models.lora import count_parameters, prepare_for_training
from rim.results import read_json, write_json
from rim.train import refusals
from rim.train.arguments import check_trainer_settings, training_arguments, weights_type
from rim.train.callbacks import Curves, MetricsFile, StageProgress, draw_curves
from rim.train.checkpoints import last_whole_checkpoint, saved_state
from rim.train.cost import total_cost
from rim.train.failures import advises_resume, explained
from rim.train.layout_store import store_layouts
from rim.train.look_ahead import look_ahead
from rim.train.measured_settings import reduce_micro_batch, settle_micro_batch, settle_readouts
from rim.train.memory import training_device
from rim.train.processes import by_first, in_turn, is_first, join, tell_of_devices, wait
from rim.train.run_folder import (
    RunFolder,
    one_writer,
    open_run_folder,
    record_environment,
    remove_checkpoints,
)
from rim.train.seeds import stage_seed
from rim.train.sharded_weights import forgetting_sharding, whole_weights
from rim.train.stopping import Termination, with_steps_left
from rim.train.trainer import ReadoutTrainer
from rim.train.validation import best_validation, validation_score


def train(recipe: Recipe, *, resume: bool = False, console: Console | None = None) -> RunFolder:
    """Run a recipe from data to a finished model.

    Raises:
        ConfigError, DataError: the recipe or its data are wrong; found before training begins where
            possible.
        TrainingDivergedError: the loss became NaN or infinite; the last good checkpoint is kept.
        TrainingMemoryError: it does not fit into memory; likewise.
    """
    with Termination() as termination, forgetting_sharding(), contextlib.ExitStack() as held:
        return _train(recipe, resume, console or Console(), termination, held)


def _train(
    recipe: Recipe,
    resume: bool,
    console: Console,
    termination: Termination,
    held: contextlib.ExitStack,
) -> RunFolder:
    join()
    if not is_first():
        console = Console(quiet=True)
    tell_of_devices(console)
    check_trainer_settings(recipe.stages)
    refusals.refuse_flex_without_gpu(recipe)
    train_set, validation_set = load_training_data(recipe.data, recipe.seed)
    run = by_first(lambda: open_run_folder(recipe, resume))
    by_first(lambda: held.enter_context(one_writer(run)))
    console.print(
        f"[bold]{recipe.name}[/]: {len(train_set)} training and "
        f"{len(validation_set)} validation examples"
    )
    by_first(lambda: record_environment(recipe, run, train_set, validation_set))
    try:
        curriculum = Curriculum(recipe, run, console, termination)
        return curriculum.run_stages(train_set, validation_set)
    except Exception as error:
        # Wrong before the first checkpoint, whatever it was: nothing worth keeping, and the name
        # stays free, unless --resume is what the message advises. The error itself goes on.
        if (
            is_first()
            and not resume
            and not advises_resume(error)
            and not any(run.path.glob("stages/*/*"))
        ):
            shutil.rmtree(run.path, ignore_errors=True)  # the error is what counts
        raise


class Curriculum:
    """One run in progress."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        console: Console,
        termination: Termination | None = None,
    ):
        self.recipe = recipe
        self.termination = termination or Termination()
        self.run = run
        self.console = console
        #: As the recipe has it; which way its read-outs run is decided with the model at hand.
        self.prompt_format = recipe.prompt_format

    def run_stages(
        self, train_set: Sequence[Example], validation_set: Sequence[Example]
    ) -> RunFolder:
        previous: Path | None = None
        for index, stage in enumerate(self.recipe.stages):
            result = self.run.stage_result(index, stage)
            if result.exists():
                self.console.print(
                    f"Stage {index + 1} of {len(self.recipe.stages)}, {stage.name}: done before",
                    highlight=False,
                )
            else:
                self._run_stage(index, stage, previous, train_set, validation_set)
            wait()
            previous = result
        assert previous is not None
        if is_first():
            self._finish(previous)
        wait()
        self.console.print(f"Finished: {self.run.model_dir}", highlight=False, markup=False)
        return self.run

    def _finish(self, previous: Path) -> None:
        for index, stage in enumerate(self.recipe.stages):  # a kill may have come before this
            remove_checkpoints(self.run.stage_dir(index, stage))
        # The finished model is written last and under its own name: its presence means "done".
        model, tokenizer = load_trained(previous)
        self._record_cost()
        draw_curves(self.run)
        partial = self.run.path / "model.partial"
        prompt_format = read_prompt_format(previous)
        save_trained(model, tokenizer, prompt_format, self.recipe.model, partial)
        partial.replace(self.run.model_dir)

    def _record_cost(self) -> None:
        """Sum up the stages."""
        files = [self.run.stage_cost(i, stage) for i, stage in enumerate(self.recipe.stages)]
        stages = [read_json(f) for f in files]
        write_json(self.run.training_file, {"total": total_cost(stages), "stages": stages})

    def _run_stage(
        self,
        index: int,
        stage: StageConfig,
        previous: Path | None,
        train_set: Sequence[Example],
        validation_set: Sequence[Example],
    ) -> None:
        recipe, folder = self.recipe, self.run.stage_dir(index, stage)
        stage = with_steps_left(recipe.stages, index, self.run, len(train_set))
        set_seed(stage_seed(recipe.seed, index))
        model, tokenizer = self.starting_model(stage, previous, train_set)
        encoder = PromptEncoder(tokenizer, recipe.prompt_format)
        refusals.refuse_answers_without_opening(stage, encoder, train_set[0])
        if previous is None:
            for sentence in look_ahead(self, model, encoder, train_set):
                self.console.print(f"[bold]Note:[/] {escape(sentence)}", highlight=False)
        validation = list(validation_set[: recipe.validation.num_examples])
        train_layouts = in_turn(
            lambda: store_layouts(
                self.lay_out(train_set, stage, encoder), train_set, stage, encoder
            )
        )
        validation_layouts = list(self.lay_out(validation, stage, encoder))
        refusals.refuse_too_long(train_set, train_layouts.column("max_position"), model)
        refusals.refuse_too_long(validation, [x.max_position for x in validation_layouts], model)
        if not recipe.model.takes_our_mask:  # a kernel of the device that trains
            model.to(training_device(stage))
        way = settle_readouts(
            recipe, self.run, stage, model, encoder, train_set, train_layouts, self.console
        )
        self.prompt_format = recipe.prompt_format.model_copy(update={"readouts": way})
        encoder = PromptEncoder(tokenizer, self.prompt_format)
        counts = count_parameters(model)
        self.console.print(
            f"Stage {index + 1} of {len(recipe.stages)}, {stage.name}: "
            f"{_length(stage, len(train_layouts))}, "
            f"{counts['trainable']:,} of {counts['total']:,} parameters train",
            highlight=False,
        )
        written = stage
        stage = settle_micro_batch(self.run, stage, model, encoder, train_layouts, self.console)
        weights = weights_type(model)
        progress = StageProgress(self.console, stage.name)
        metrics = MetricsFile(self.run.metrics_file, stage.name)
        trainer = ReadoutTrainer(
            stage=stage,
            encoder=encoder,
            score=validation_score(recipe, encoder, validation, validation_layouts),
            model=model,
            args=training_arguments(
                recipe, stage, index, folder, len(train_layouts), weights=weights
            ),
            train_dataset=train_layouts,
            eval_dataset=validation_layouts,
            callbacks=[progress, metrics, Curves(self.run), self.termination],
        )
        checkpoint = by_first(lambda: self._last_checkpoint(index, stage))
        if checkpoint:
            step = saved_state(checkpoint).global_step
            self.console.print(f"  continues after step {step}", highlight=False)
        try:
            with explained(
                stage,
                weights,
                lambda: self._last_checkpoint(index, stage) or previous,
                lambda micro: reduce_micro_batch(self.run, written, micro),
            ):
                trainer.train_from(checkpoint)
        finally:
            progress.stop()
        state = trainer.state
        cost = {
            "stage": stage.name,
            **trainer.cost.counts,
            "parameters": counts,
            "planned_steps": state.max_steps,
            "ended_early": trainer.patience.ending(state) if trainer.patience else None,
            "validation": best_validation(state) | {"questions": len(validation)},
        }
        self._end_stage(index, stage, trainer, tokenizer, metrics, cost)

    def _end_stage(
        self,
        index: int,
        stage: StageConfig,
        trainer: ReadoutTrainer,
        tokenizer: Any,
        metrics: MetricsFile,
        cost: dict[str, Any],
    ) -> None:
        """Say how a stage ended; write its model and what it cost."""
        state, ending, folder = trainer.state, cost["ended_early"], self.run.stage_dir(index, stage)
        if ending:
            self.console.print(f"  {ending}", highlight=False)
        self.console.print(f"  best validation at step {state.best_global_step}", highlight=False)
        trained = trainer.accelerator.unwrap_model(trainer.model)
        whole = whole_weights(trainer)
        if is_first():
            partial = folder / "final.partial"
            base = self.recipe.model
            save_trained(trained, tokenizer, self.prompt_format, base, partial, whole)
            if ending:
                metrics.write(state.global_step, {"ended": ending, "planned": state.max_steps})
            write_json(self.run.stage_cost(index, stage), cost)
            partial.replace(self.run.stage_result(index, stage))
            remove_checkpoints(folder)

    def _last_checkpoint(self, index: int, stage: StageConfig) -> Path | None:
        """The checkpoint to go on from; torn ones are named."""

        def tell(sentence: str) -> None:
            self.console.print(f"[bold red]{escape(sentence)}[/]", soft_wrap=True)

        return last_whole_checkpoint(self.run.stage_dir(index, stage), tell)

    def starting_model(
        self, stage: StageConfig, previous: Path | None, train_set: Sequence[Example]
    ) -> tuple[Any, Any]:
        recipe = self.recipe
        if previous is not None:
            return load_for_training(previous, stage.dropout)
        templates = recipe.templates
        texts = (
            text
            for example in train_set
            for text in (
                templates.question_text(example.question),
                templates.solution_text(example.steps, example.answer),
            )
        )
        model, tokenizer = load_base(recipe.model, recipe.prompt_format, texts, recipe.seed)
        memory_ids = list(PromptEncoder(tokenizer, recipe.prompt_format).memory_ids)
        modules = METHODS[recipe.method].extra_modules
        model = prepare_for_training(model, recipe.model, memory_ids, stage.dropout, modules)
        return model, tokenizer

    def lay_out(
        self, examples: Sequence[Example], stage: StageConfig, encoder: PromptEncoder
    ) -> Iterator[Layout]:
        """A data set for a stage, laid out while it is read."""
        method = METHODS[self.recipe.method]
        # track() shows itself only on a terminal, and only work of some seconds is worth a bar.
        shown = track(
            examples, "encoding", console=self.console, transient=True, disable=len(examples) < 5000
        )
        for example in shown:
            yield lay_out(method, example, stage, encoder)


def _length(stage: StageConfig, num_examples: int) -> str:
    if stage.max_steps:
        return f"{stage.max_steps} steps of {stage.batch_size} examples"
    return f"{stage.epochs:g} epochs of {num_examples} examples, batch {stage.batch_size}"
