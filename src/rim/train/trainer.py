"""transformers' Trainer with the read-out loss. Only what the loss needs is overridden."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from rim.config import StageConfig
from rim.core.blind import blind_coins
from rim.core.collate import collate
from rim.core.feedback import feedback_of
from rim.core.forward import forward_readouts
from rim.core.layout import Layout
from rim.core.losses import ReadoutLoss
from rim.core.prompt import PromptEncoder
from rim.core.schedules import readout_weights
from rim.methods import METHODS
from rim.train.cost import TrainingCost

#: Scores a model during training, e.g. by decoding validation answers; must return "accuracy".
Score = Callable[[Any], dict[str, float]]

# Checkpoints are chosen by validation accuracy; loss breaks ties, so that a stage whose accuracy
# stays at zero still ends on its best weights. Small enough never to outweigh one example in a
# thousand.
_TIE_BREAK = 1e-6


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number."""


class LayoutDataset(Dataset):
    """Laid-out examples, encoded once before training."""

    def __init__(self, layouts: list[Layout]):
        self.layouts = layouts

    def __len__(self) -> int:
        return len(self.layouts)

    def __getitem__(self, index: int) -> Layout:
        return self.layouts[index]


class ReadoutTrainer(Trainer):
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
        into_batch = functools.partial(
            collate,
            align_trunks=self.feedback is not None,
            separate=encoder.format.readouts == "separate",
        )
        super().__init__(data_collator=into_batch, **kwargs)
        self.stage = stage
        self.memory = encoder.format.memory
        self.extra_loss = METHODS[encoder.format.method].extra_loss(stage)
        self.score = score
        # compute_loss divides by the global number of examples itself.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        train_set = self.train_dataset
        layouts = train_set.layouts if isinstance(train_set, LayoutDataset) else []
        self._max_readouts = max((x.num_step_readouts + 1 for x in layouts), default=1)
        self._blind_step, self._examples_of_step = -1, 0
        # Losses and weights since the last log, of training and of validation.
        self._windows: dict[bool, list[tuple[ReadoutLoss, Tensor]]] = {True: [], False: []}
        self.cost = TrainingCost()
        self.add_callback(self.cost)
        self._pending_scores: dict[str, float] = {}

    def train_from(self, checkpoint: Path | None) -> None:
        """Train from the beginning or from a checkpoint. One of the last step has nothing left to
        train: `train` would take one step too many, so its best weights are only loaded.
        """
        if checkpoint:
            self.cost.continue_from(checkpoint)
            state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
            if state.global_step >= state.max_steps:
                self.state = state
                self._load_best_model()
                return
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
        weights_BR = readout_weights(
            self.stage.weighting,
            inputs["num_readouts"],
            inputs["num_step_readouts"],
            width=int(inputs["num_readouts"].max()),
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
        )
        # Detached: the window must not keep the graph of past steps alive.
        detached = dataclasses.replace(loss, per_example_B=loss.per_example_B.detach())
        self._windows[training].append((detached, weights_BR))
        count = len(inputs["num_readouts"]) if num_items_in_batch is None else num_items_in_batch
        value = loss.per_example_B.sum() / count
        # Gradients and logs are averaged over processes; the count is already over all of them.
        value = value * self.accelerator.num_processes
        return (value, {"loss": value}) if return_outputs else value

    def _draw_blind(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Which read-outs of a training batch do not see the question; validation sees it, as the
        served model does.
        """
        stage, batch_size, step = self.stage, len(inputs["num_readouts"]), self.state.global_step
        if not stage.blind_readouts:
            return None
        if step != self._blind_step:
            self._blind_step, self._examples_of_step = step, 0
        # Processes share a step's batch: each numbers its examples behind the others'.
        share = stage.batch_size // self.args.world_size
        first = self.args.process_index * share + self._examples_of_step
        self._examples_of_step += batch_size
        width = int(inputs["num_readouts"].max())
        return blind_coins(
            stage.blind_readouts,
            stage.blind_coin,
            batch_size,
            width,
            seed=self.args.seed,
            step=step,
            first=first,
        )

    @property
    def progress(self) -> float:
        """Share of the stage that is done, 0..1."""
        return min(1.0, self.state.global_step / max(1, self.state.max_steps))

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Tensor]], device: torch.device
    ) -> Any:
        """Examples of the accumulated batch over all processes (the base class counts tokens)."""
        count = sum(len(batch["num_readouts"]) for batch in batch_samples)
        if self.args.world_size == 1:
            return count
        gathered: Any = self.accelerator.gather(torch.tensor(count, device=device))
        return gathered.sum()

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        self.cost.count(inputs, self.feedback)
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Before the optimizer moves: the weights, and every checkpoint so far, are still good.
        if not math.isfinite(loss.item()):
            raise TrainingDivergedError(
                f"the loss became {loss.item()} at step {self.state.global_step + 1}"
            )
        return loss

    # --- evaluation and logs ---

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss on the validation layouts, plus what `score` says; `eval_selection` picks the
        checkpoint.
        """
        score = self.score(self.accelerator.unwrap_model(self.model)) if self.score else {}
        self._pending_scores = {f"eval_{name}": value for name, value in score.items()}
        self._windows[False].clear()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._pending_scores = {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "eval_loss" in logs and self._pending_scores:
            # The same dict is returned by `evaluate`, so the scores reach checkpoint selection too.
            logs.update(self._pending_scores)
            logs["eval_token_loss"] = _token_loss(self._windows[False])
            loss = logs["eval_loss"] if math.isfinite(logs["eval_loss"]) else 1e3
            logs["eval_selection"] = logs["eval_accuracy"] - _TIE_BREAK * min(loss, 1e3)
        elif "loss" in logs and self._windows[True]:
            logs.update(self._readout_metrics())
        super().log(logs, start_time)

    def _readout_metrics(self) -> dict[str, float]:
        """Mean negative log-probability per token, of all read-outs by their weights and of the
        first and last; token accuracy.
        """
        token_loss = _token_loss(self._windows[True])
        window = [loss for loss, _ in self._windows[True]]
        self._windows[True].clear()
        width = max(loss.nll_BR.shape[1] for loss in window)
        nll, tokens, correct = (
            torch.stack([_column_sums(getattr(loss, name), width) for loss in window]).sum(0)
            for name in ("nll_BR", "tokens_BR", "correct_BR")
        )
        return {
            "token_loss": token_loss,
            "readout_first_nll": (nll[0] / tokens[0]).item(),
            "readout_last_nll": (nll[-1] / tokens[-1]).item(),
            "token_accuracy": (correct.sum() / tokens.sum()).item(),
        }

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """No weight decay on the memory-token rows under LoRA: decay would pull them to zero on
        every step.
        """
        names = super().get_decay_parameter_names(model)
        return [name for name in names if "trainable_tokens" not in name]


def _token_loss(window: list[tuple[ReadoutLoss, Tensor]]) -> float:
    """Negative log-probability of a target token, mean over those of all read-outs, each weighing
    as its read-out does: a read-out that the schedule has withdrawn does not count.
    """
    nll = sum(float((weights_BR * loss.nll_BR).sum()) for loss, weights_BR in window)
    tokens = sum(float((weights_BR * loss.tokens_BR).sum()) for loss, weights_BR in window)
    return nll / tokens


def _column_sums(values_BR: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values_BR.sum(0), (0, width - values_BR.shape[1]))
