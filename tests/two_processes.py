"""Trains recipes one after the other in each of two processes, as `tests/test_processes.py` asks:
`two_processes.py JOBS.json`, with the number of the process in its environment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from rich.console import Console

import rim.core.forward
import rim.train.curriculum
import rim.train.trainer
from rim.config.recipe_yaml import recipe_from_dict
from rim.train.curriculum import train


def kill_at(stage: str, step: int, rank: int) -> None:
    """`kill -9` of one process within a step; its launcher then ends the other."""
    original = rim.train.trainer.ReadoutTrainer.training_step

    def training_step(self, *args, **kwargs):
        here = (self.stage.name, self.state.global_step + 1, self.args.process_index)
        if here == (stage, step, rank):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)

    rim.train.trainer.ReadoutTrainer.training_step = training_step  # type: ignore[method-assign]


def kill_before_saving(stage: str, rank: int) -> None:
    """After a stage's last checkpoint, before its model is written."""
    original = rim.train.curriculum.whole_weights

    def whole_weights(trainer):
        if (trainer.stage.name, trainer.args.process_index) == (stage, rank):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(trainer)

    rim.train.curriculum.whole_weights = whole_weights  # type: ignore[assignment]


def shard_on_cpus() -> None:
    """accelerate shards on GPUs alone. Its own FSDP2 runs on a CPU as well, once it is told to."""
    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init  # type: ignore[method-assign]
    rim.core.forward.MOST_LOGITS = 64  # a vocabulary that would be taken in chunks


for job in json.loads(Path(sys.argv[1]).read_text()):
    if "kill_at" in job:
        kill_at(*job["kill_at"])
    if "kill_before_saving" in job:
        kill_before_saving(*job["kill_before_saving"])
    if job.get("shard"):
        shard_on_cpus()
    console = Console(width=200)
    train(recipe_from_dict(job["recipe"]), resume=job.get("resume", False), console=console)
