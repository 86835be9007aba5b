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

from rich.console import Console

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


for job in json.loads(Path(sys.argv[1]).read_text()):
    if "kill_at" in job:
        kill_at(*job["kill_at"])
    console = Console(width=200)
    train(recipe_from_dict(job["recipe"]), resume=job.get("resume", False), console=console)
