"""Several processes of one training, as `torchrun` and `accelerate launch` start them.

The first process writes; what it finds on disk, and whatever it refuses, the others hear from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from rich.console import Console
from torch import Tensor

from rim.config import ConfigError, StageConfig
from rim.data.examples import DataError

T = TypeVar("T")


def process_count() -> int:
    """Processes of this training, by the environment that the launcher makes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def join() -> None:
    """Meet the other processes, if there are any."""
    if process_count() > 1:
        PartialState(cpu=not torch.accelerator.is_available())


def tell_of_devices(console: Console) -> None:
    """Say what trains, where a person may expect something else."""
    processes, devices = process_count(), torch.cuda.device_count()
    if processes > 1:
        console.print(f"{processes} processes share every batch", highlight=False)
    elif devices > 1:
        console.print(
            f"{devices} GPUs are here: training on the first. All of them: `torchrun "
            f"--nproc-per-node {devices} --no-python rim train ...` (docs/scaling.md)",
            highlight=False,
        )


def wait() -> None:
    """Wait until all processes are here."""
    if process_count() > 1:
        PartialState().wait_for_everyone()


def by_first(work: Callable[[], T]) -> T:
    """What `work` returns in the first process, in all of them; so with what it refuses.

    Raises:
        ConfigError, DataError: the first process met one.
    """
    if process_count() == 1:
        return work()
    told: list[Any] = [None, None]
    if is_first():
        try:
            told[0] = work()
        except (ConfigError, DataError) as error:
            told[1] = error
    broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    return told[0]


def in_turn(work: Callable[[], T]) -> T:
    """What `work` returns in each process; the first does it alone, so that the others find what it
    wrote.

    Raises:
        ConfigError, DataError: the first process met one.
    """
    done: list[T] = []
    by_first(lambda: done.append(work()))
    return done[0] if done else work()


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any of the processes; all must ask."""
    if process_count() == 1:
        return flag
    flags: list[Any] = [None] * process_count()
    dist.all_gather_object(flags, flag)
    return any(flags)


def micro_batch(stage: StageConfig, processes: int) -> int:
    """Examples that enter a process's model at a time.

    Raises:
        ConfigError: the stage's batch cannot be shared among so many processes.
    """
    micro = stage.micro_batch_size
    if micro == "auto":  # not settled yet (`rim.train.measured_settings`): at most this
        micro = max(1, stage.batch_size // processes)
    if stage.batch_size % (micro * processes):
        raise ConfigError(
            f"stage {stage.name!r}: batch_size {stage.batch_size} is not a multiple of "
            f"{processes} processes times micro_batch_size {micro}"
        )
    return micro


def counted(
    batches: list[dict[str, Tensor]], step: int, num_examples: int, stage: StageConfig, rank: int
) -> Iterator[Tensor]:
    """Which examples of a process's micro-batches are to count, `[B]` each.

    Processes take micro-batches in turn. At an epoch's end, where examples are left over, batches
    are filled up with ones that were seen already, so that all processes have as many; those do
    not count.

    Args:
        step: optimizer steps before this one.
    """
    processes = process_count()
    micro = micro_batch(stage, processes)
    done = step % -(-num_examples // stage.batch_size) * stage.batch_size
    for number, batch in enumerate(batches):
        first = done + (number * processes + rank) * micro
        yield first + torch.arange(len(batch["num_readouts"])) < num_examples
