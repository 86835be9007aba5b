"""What training costs: steps, examples, tokens and seconds, kept through interruptions."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from rim.core.feedback import Feedback, filling_tokens
from rim.core.layout import PADDING

#: Sums over stages.
COUNTS = ("steps", "examples", "tokens", "target_tokens", "seconds")


class TrainingCost(TrainerCallback, ExportableState):
    """Counts one stage. The counts travel in the trainer's checkpoints, so a resumed stage states
    the cost of the steps that made its model, repeated steps once.

    tokens: those that entered the model, in every pass, padding left out; target_tokens: those with
    a loss.
    seconds: optimizer steps with their forward and backward passes; validation and saving left out.
    """

    def __init__(self) -> None:
        self._counts: dict[str, float] = dict.fromkeys(COUNTS, 0)
        self._tokens: Tensor | None = None  # those not yet in the counts, on the device
        self._began = 0.0

    @property
    def counts(self) -> dict[str, float]:
        """The sums so far. Looking waits for the device, counting does not."""
        if self._tokens is not None:
            self._counts["tokens"] += int(self._tokens)
            self._tokens = None
        return self._counts

    def count(self, inputs: dict[str, Tensor], feedback: Feedback | None) -> None:
        """Add one micro-batch as the collator made it."""
        self._counts["examples"] += len(inputs["num_readouts"])
        self._counts["target_tokens"] += len(inputs["target_ids"])
        tokens = (inputs["input_ids"] != PADDING).sum()
        self._tokens = tokens if self._tokens is None else self._tokens + tokens
        if feedback is not None:
            self._counts["tokens"] += filling_tokens(inputs, feedback)

    def add(self, examples: int, tokens: int, target_tokens: int) -> None:
        """Add what was counted over several processes, see `micro_batch_counts`."""
        self._counts["examples"] += examples
        self._counts["tokens"] += tokens
        self._counts["target_tokens"] += target_tokens

    def continue_from(self, state: Any) -> None:
        """Take up the counts of a checkpoint."""
        stored = state.stateful_callbacks[type(self).__name__]["attributes"]
        self._counts, self._tokens = stored["counts"], None

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"counts": dict(self.counts)}}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._counts["steps"] += 1
        # What a GPU has still to do is this step's; where something is written anyway, it is waited
        # for, so that no wait is added.
        written = control.should_log or control.should_evaluate or control.should_save
        if written and torch.cuda.is_available():
            torch.cuda.synchronize()
        self._counts["seconds"] += time.perf_counter() - self._began


def micro_batch_counts(
    inputs: dict[str, Tensor], feedback: Feedback | None
) -> tuple[int, int, int]:
    """Examples, tokens and target tokens of one micro-batch as the collator made it."""
    tokens = int((inputs["input_ids"] != PADDING).sum())
    if feedback is not None:
        tokens += filling_tokens(inputs, feedback)
    return len(inputs["num_readouts"]), tokens, len(inputs["target_ids"])


def total_cost(stages: list[dict[str, Any]]) -> dict[str, float]:
    """The sums over stage records."""
    return {name: sum(stage[name] for stage in stages) for name in COUNTS}
