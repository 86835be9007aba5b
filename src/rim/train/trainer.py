"""transformers' Trainer with the read-out loss. Only what the loss needs is overridden."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback

from rim.config import StageConfig
from rim.core.blind_readouts import blind_coins
from rim.core.collate import collate
from rim.core.feedback import feedback_of
from rim.core.forward import forward_readouts, head_makes_logits, logits_chunk
from rim.core.layers import unwrap
from rim.core.layout import LaidOut
from rim.core.readout_weights import readout_weights
from rim.core.tokens import PromptEncoder
from rim.methods import METHODS
from rim.train.checkpoints import BestIsHere, saved_state
from rim.train.cost import TrainingCost
from rim.train.layout_store import most_step_readouts
from rim.train.log_window import (
    Window,
    readout_metrics,
    token_loss,
    window_from,
    window_state,
    without,
)
from rim.train.out_of_memory import validating
from rim.train.processes import by_first
from rim.train.sharded_weights import settle_sharding
from rim.train.sharing import SharedTrainer
from rim.train.stopping import Patience

#: Scores a model during training, e.g. by decoding validation answers; must return "accuracy".
Score = Callable[[Any], dict[str, float]]

# Checkpoints are chosen by validation accuracy; loss breaks ties, so that a stage whose accuracy
# stays at zero still ends on its best weights. Small enough never to outweigh one example in a
# thousand.
_TIE_BREAK = 1e-6


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number."""


def batch_maker(
    stage: StageConfig, encoder: PromptEncoder
) -> Callable[[Sequence[LaidOut]], dict[str, Tensor]]:
    """From laid-out examples to a batch, as a stage's method wants its rows."""
    separate = encoder.format.readouts == "separate"
    fed_back = feedback_of(encoder) is not None
    has_extra_loss = METHODS[encoder.format.method].extra_loss(stage) is not None
    return functools.partial(
        collate,
        align_trunks=fed_back,
        separate=separate,
        # Columns of latents and extra losses are one row an example.
        pack=stage.packing and not separate and not fed_back and not has_extra_loss,
    )


class ReadoutTrainer(SharedTrainer):
    """Minimises the weighted read-out loss of one stage.

    The loss is a mean over the examples of the whole (accumulated, distributed) batch, so
    accumulation changes nothing but memory (an extra loss of the method's own may look at the
    micro-batch, as CODI's does).
    """

    def __init__(
        self,
        *,
        stage: StageConfig,
        encoder: PromptEncoder,
        score: Score | None = None,
        **kwargs: Any,
    ):
        self.feedback = feedback_of(encoder)
        self.extra_loss = METHODS[encoder.format.method].extra_loss(stage)
        super().__init__(data_collator=batch_maker(stage, encoder), **kwargs)
        self.remove_callback(PrinterCallback)
        settle_sharding(self, feeds_back=self.feedback is not None)
        self.stage = stage
        self.memory = encoder.format.memory
        self.score = score
        self._unchecked: list[tuple[int, Tensor]] = []  # losses by step, not yet seen to be finite
        # compute_loss divides by the global number of examples itself.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        layouts: Any = [] if self.train_dataset is None else self.train_dataset
        self._max_readouts = most_step_readouts(layouts) + 1
        self._blind_step, self._examples_of_step = -1, 0
        self._num_examples = len(layouts)
        # Losses and weights since the last log, of training and of validation.
        self._windows: dict[bool, Window] = {True: [], False: []}
        self.cost = TrainingCost()
        self.add_callback(self.cost)
        self.patience = Patience(stage.patience) if stage.patience else None
        if self.patience:
            self.add_callback(self.patience)
        self._pending_scores: dict[str, float] = {}

    def train_from(self, checkpoint: Path | None) -> None:
        """Train from the beginning or from a checkpoint. One of the last step, or of that at which
        the patience ran out, has nothing left to train: `train` would take one step too many, so
        its best weights are only loaded.
        """
        if checkpoint:
            state = saved_state(checkpoint)
            self.cost.continue_from(state)
            if self.patience:
                self.patience.continue_from(state)
            if state.global_step >= state.max_steps or (self.patience and self.patience.is_out):
                self.state = state
                if self.is_fsdp_enabled or self.is_deepspeed_enabled:  # to be loaded into shards
                    self._prepare_for_training(state.max_steps, None, None)
                self._load_best_model()
                return
            self.add_callback(BestIsHere(checkpoint))
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    # --- loss ---

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        training = model.training
        counted_B = inputs.pop("counted_B", None)
        weights_BR = readout_weights(
            self.stage.weighting,
            inputs["num_readouts"],
            inputs["num_step_readouts"],
            width=inputs["target_counts"].shape[1],
            max_readouts=self._max_readouts,
            # Validation measures the task, not the schedule: the weights of the stage's beginning.
            progress=self.progress if training else 0.0,
            step_weight=self.stage.step_weight,
        )
        loss = forward_readouts(
            model,
            inputs,
            self.memory,
            weights_BR,
            self.stage.reduction,
            plain_model=self.accelerator.unwrap_model(model),
            feedback=self.feedback,
            blind_BR=self._draw_blind(inputs) if training else None,
            extra_loss=self.extra_loss,
            chunk=self._chunk(inputs),
        )
        if counted_B is not None:
            weights_BR = weights_BR * counted_B[:, None]
            loss = without(loss, counted_B)
        # Detached: the window must not keep the graph of past steps alive.
        detached = dataclasses.replace(loss, per_example_B=loss.per_example_B.detach())
        self._windows[training].append((detached, weights_BR))
        count = len(inputs["num_readouts"]) if num_items_in_batch is None else num_items_in_batch
        value = loss.per_example_B.sum() / count
        if training:
            # Gradients and logs are averaged over processes; the count is already over all of them.
            value = value * self.accelerator.num_processes
        return (value, {"loss": value}) if return_outputs else value

    def _draw_blind(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Which read-outs of a training batch do not see the question; validation sees it, as the
        served model does.
        """
        stage, step = self.stage, self.state.global_step
        if not stage.blind_readouts:
            return None
        batch_size, width = inputs["target_counts"].shape
        if step != self._blind_step:
            self._blind_step, self._examples_of_step = step, 0
        # Processes take micro-batches in turn: an example has the number that it has in one alone.
        micro = self.args.per_device_train_batch_size
        first = self._examples_of_step + self.args.process_index * micro
        self._examples_of_step += micro * self.args.world_size
        coins_BR = blind_coins(
            stage.blind_readouts,
            stage.blind_coin,
            batch_size,
            width,
            seed=self.args.seed,
            step=step,
            first=first,
        )
        device = inputs["input_ids"].device
        if device.type == "cuda":  # from pinned memory nobody waits for the copy
            coins_BR = coins_BR.contiguous().pin_memory()
        return coins_BR.to(device, non_blocking=True)

    def _chunk(self, inputs: dict[str, Tensor]) -> int | None:
        if self.is_fsdp_enabled:  # the head's weights are whole in its own pass only
            return None
        chunk = logits_chunk(unwrap(self.model), len(inputs["target_ids"]))
        return chunk if chunk and self._head_makes_logits else None

    @functools.cached_property
    def _head_makes_logits(self) -> bool:
        return head_makes_logits(unwrap(self.model))

    @property
    def progress(self) -> float:
        """Share of the stage that is done, 0..1."""
        return min(1.0, self.state.global_step / max(1, self.state.max_steps))

    def _save_rng_state(self, output_dir: str) -> None:
        """Also what was measured since the last log: a resumed stage logs the same numbers."""
        super()._save_rng_state(output_dir)
        state = {
            "tr_loss": self._tr_loss,
            "logged": self._globalstep_last_logged,
            "window": window_state(self._windows[True]),
        }
        torch.save(state, Path(output_dir) / f"log_window_{self.args.process_index}.pt")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is None:
            return
        file = Path(checkpoint) / f"log_window_{self.args.process_index}.pt"
        state = torch.load(file, map_location="cpu", weights_only=True)
        self._tr_loss += state["tr_loss"].to(self._tr_loss.device)
        # The mean at the end is of this session's steps.
        self._total_loss_scalar -= float(state["tr_loss"])
        self._globalstep_last_logged = state["logged"]
        self._windows[True] += window_from(state["window"], self._tr_loss.device)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        if self.args.world_size == 1:  # else it is counted with the batch's examples
            self.cost.count(inputs, self.feedback)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._unchecked.append((self.state.global_step + 1, loss))
        return loss

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        # Looking at a loss waits for the device, so it is done where something is written anyway,
        # and first: nothing that a bad step made is ever saved.
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self._refuse_bad_losses()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _refuse_bad_losses(self) -> None:
        steps, losses = zip(*self._unchecked, strict=True) if self._unchecked else ((), ())
        self._unchecked.clear()
        # Their sums, so that all processes hear of a bad one.
        sums = self._over_processes(torch.stack(losses)).tolist() if losses else ()
        for step, loss in zip(steps, sums, strict=True):
            if not math.isfinite(loss):
                raise TrainingDivergedError(f"the loss became {loss} at step {step}")

    # --- evaluation and logs ---

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss on the validation layouts, plus what `score` says; `eval_selection` picks the
        checkpoint.
        """
        # Every process validates all of it on its own copy of the model, which takes as long as one
        # alone would; the first one's word is what counts, so that all choose the same checkpoint.
        with validating(self.args.per_device_eval_batch_size):
            score = self.score(self.accelerator.unwrap_model(self.model)) if self.score else {}
            self._pending_scores = {f"eval_{name}": value for name, value in score.items()}
            self._windows[False].clear()
            try:
                metrics = super().evaluate(*args, **kwargs)
            finally:
                self._pending_scores = {}
        if not math.isfinite(loss := metrics["eval_loss"]):
            # Before anything is saved: the update of the step before may have broken the weights.
            raise TrainingDivergedError(
                f"the validation loss became {loss} after step {self.state.global_step}"
            )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "eval_loss" in logs and self._pending_scores:
            # The same dict is returned by `evaluate`, so the scores reach checkpoint selection too.
            logs.update(self._pending_scores)
            logs["eval_token_loss"] = token_loss(self._windows[False])
            loss = min(logs["eval_loss"], 1e3)
            logs["eval_selection"] = logs["eval_accuracy"] - _TIE_BREAK * loss
            logs.update(by_first(lambda: dict(logs)))
        elif "loss" in logs and self._windows[True]:
            logs.update(self._readout_metrics())
        super().log(logs, start_time)

    def _readout_metrics(self) -> dict[str, float]:
        metrics = readout_metrics(self._windows[True], self._over_processes, self._most)
        self._windows[True].clear()
        return metrics

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """No weight decay on the memory-token rows under LoRA: decay would pull them to zero on
        every step.
        """
        names = super().get_decay_parameter_names(model)
        return [name for name in names if "trainable_tokens" not in name]
