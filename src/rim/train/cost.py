"""What training costs: steps, examples, tokens and seconds, kept through interruptions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

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
        self.counts: dict[str, float] = dict.fromkeys(COUNTS, 0)
        self._began = 0.0

    def count(self, inputs: dict[str, Tensor], feedback: Feedback | None) -> None:
        """Add one micro-batch as the collator made it."""
        self.counts["examples"] += len(inputs["num_readouts"])
        self.counts["tokens"] += int((inputs["input_ids"] != PADDING).sum())
        if feedback is not None:
            self.counts["tokens"] += filling_tokens(inputs, feedback)
        self.counts["target_tokens"] += int((inputs["targets"] != PADDING).sum())

    def continue_from(self, checkpoint: Path) -> None:
        """Take up the counts of a checkpoint."""
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        stored = state["stateful_callbacks"].get(type(self).__name__)
        if stored is not None:  # absent in checkpoints of earlier versions
            self.counts = stored["attributes"]["counts"]

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"counts": dict(self.counts)}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A checkpoint of an earlier version does not know this callback, and saving looks it up.
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.counts["steps"] += 1
        self.counts["seconds"] += time.perf_counter() - self._began


def total_cost(stages: list[dict[str, Any]]) -> dict[str, float]:
    """The sums over stage records."""
    return {name: sum(stage[name] for stage in stages) for name in COUNTS}
