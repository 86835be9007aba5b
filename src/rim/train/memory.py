"""How many examples fit into memory at a time, and whether an error says that it was not enough.

`micro_batch_size: auto` takes the whole batch if it fits, else the largest part that divides it.
On a GPU that is tried, with the longest examples and room for the optimizer's state. A CPU's
system promises memory that it does not have and ends the process later, so there it is worked out:
what a forward pass of a few of the longest examples keeps for the backward pass, against what is
free. Neither touches weights or random numbers.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate.utils import find_executable_batch_size
from torch import Tensor

from rim.config import StageConfig
from rim.core.feedback import feedback_of
from rim.core.forward import forward_readouts, head_makes_logits, logits_chunk
from rim.core.layers import unwrap
from rim.core.layout import LaidOut
from rim.core.tokens import PromptEncoder
from rim.methods import METHODS
from rim.train.arguments import CHECKPOINTING, mixed_precision, weights_type
from rim.train.layout_store import lengths
from rim.train.out_of_memory import TrainingMemoryError
from rim.train.processes import micro_batch, process_count
from rim.train.trainer import batch_maker

#: Examples of the forward pass that a CPU's need is worked out from.
LOOKED_AT = 4
#: What a step takes at its peak, as a multiple of what the forward pass keeps: gradients of
#: activations and temporary results come on top (our allowance).
PEAK = 1.5
#: Share of the free memory that may be planned with.
PLANNED = 0.8
#: A weight's gradient, and the two numbers that Adam keeps of it.
STATE = 3
#: What each process of several on one machine may count on is its share.
_HERE = "LOCAL_WORLD_SIZE"
_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    for group in _groups():  # a container's or a cluster job's share of the machine
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            # Files that were read, such as a base's weights, count as used until others need room.
            read = _number(group / "memory.stat", "inactive_file ") or 0
            free = min(free, limit - used + read)
    return max(0, free) // int(os.environ.get(_HERE, "1"))


def _groups() -> list[Path]:
    """This process's control group (version 2) and all that it lies in; each may have a limit."""
    try:
        lines = _OWN_GROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return []
    inner = Path(own)
    return [_CGROUP / inner, *(_CGROUP / outer for outer in inner.parents)]


def _number(file: Path, name: str = "") -> int | None:
    """A group's number: a file's only line, or that behind a name; None if there is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    text = next((line.removeprefix(name) for line in lines if line.startswith(name)), "")
    return int(text) if text.isdigit() else None


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that this process has had on a device since it began; None: not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def training_device(stage: StageConfig) -> torch.device:
    """Where transformers' Trainer will put the model."""
    if stage.trainer.get("use_cpu") or not torch.accelerator.is_available():
        return torch.device("cpu")
    device = torch.accelerator.current_accelerator()
    assert device is not None, "one is available"
    return torch.device(device.type, torch.accelerator.current_device_index())


# --- the trial -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MicroBatch:
    """What `micro_batch_size: auto` found. needed: bytes of a step with the whole share of the
    batch, where worked out; free: bytes that there were.
    """

    micro_batch_size: int
    whole: int
    needed: int | None
    free: int

    @property
    def sentence(self) -> str:
        free = f"{self.free / 1e9:.1f} GB are free"
        if self.needed is None:
            free = f"tried; {free}"
        if self.micro_batch_size == self.whole:
            need = "" if self.needed is None else f"about {self.needed / 1e9:.2f} GB, "
            return f"Micro-batches: {self.whole}, all at once ({need}{free})"
        need = "" if self.needed is None else f" would take about {self.needed / 1e9:.1f} GB"
        return f"Micro-batches: {self.micro_batch_size}; {self.whole} at once{need} ({free})"

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"found": "auto"}


def divisors(number: int) -> list[int]:
    """List the divisors of a number, the largest first."""
    return [d for d in range(number, 0, -1) if number % d == 0]


def smaller(stage: StageConfig, micro: int) -> int | None:
    """The next smaller micro-batch that divides a stage's batch; None: it is one example."""
    share = stage.batch_size // process_count()
    return next((d for d in divisors(share) if d < micro), None)


def find_micro_batch(
    stage: StageConfig, model: Any, encoder: PromptEncoder, layouts: Sequence[LaidOut]
) -> MicroBatch:
    """The largest micro-batch that fits into memory, see above.

    Raises:
        TrainingMemoryError: not even one example does.
    """
    whole = micro_batch(stage, process_count())
    device = training_device(stage)
    free = free_memory(device)
    longest = [layouts[i] for i in np.argsort(-lengths(layouts), kind="stable")[:whole]]
    step = _Step(stage, model, encoder)
    if device.type != "cpu":
        model.to(device)
        return MicroBatch(_tried(step, longest, whole, device), whole, None, free)
    looked_at = longest[:LOOKED_AT]
    one, several = step.kept_bytes(looked_at[:1]), step.kept_bytes(looked_at)
    more = len(looked_at) - 1
    an_example = (several - one) / more if more else one
    # What does not grow with the examples, such as mixed precision's copies of the weights.
    once = max(0, one - an_example)
    each = PEAK * an_example
    # Of the same examples again where there are fewer than the batch is large.
    fixed = once + STATE * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    room = PLANNED * free - fixed
    fitting = [d for d in divisors(whole) if d * each <= room]
    return MicroBatch(fitting[0] if fitting else 1, whole, int(whole * each + fixed), free)


def _tried(step: _Step, longest: Sequence[LaidOut], whole: int, device: torch.device) -> int:
    sizes = iter(divisors(whole))

    def attempt(count: int) -> int:
        step.take((list(longest) * count)[:count], device)
        return count

    attempts: Any = find_executable_batch_size(
        attempt, starting_batch_size=next(sizes), reduce_batch_size_fn=lambda: next(sizes, 0)
    )
    try:
        return attempts()
    except RuntimeError as error:
        if "No executable batch size" not in str(error):
            raise
        raise TrainingMemoryError(
            f"not even one example of stage {step.stage.name!r} fits into the memory of {device}; "
            "set gradient_checkpointing: true or bf16: true, drop the longest examples, or take a "
            "smaller base"
        ) from None


class _Step:
    """Forward and backward passes of a stage that leave no trace."""

    def __init__(self, stage: StageConfig, model: Any, encoder: PromptEncoder):
        self.stage, self.model, self.encoder = stage, model, encoder
        self.into_batch = batch_maker(stage, encoder)

    @contextlib.contextmanager
    def _as_in_training(self, device: torch.device) -> Generator[None]:
        was_training, checkpointing = self.model.training, self.stage.gradient_checkpointing
        cuda = [device.index] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            self.model.train()
            if checkpointing:
                getattr(self.model, f"{CHECKPOINTING}_enable")({"use_reentrant": False})
            try:
                mixed = mixed_precision(self.stage, weights_type(self.model))
                with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                    yield
            finally:
                if checkpointing:
                    getattr(self.model, f"{CHECKPOINTING}_disable")()
                self.model.train(was_training)
                self.model.zero_grad(set_to_none=True)

    def _loss(self, layouts: Sequence[LaidOut], device: torch.device) -> Tensor:
        batch = {name: x.to(device) for name, x in self.into_batch(layouts).items()}
        plain, prompt_format = unwrap(self.model), self.encoder.format
        chunk = logits_chunk(plain, len(batch["target_ids"]))
        loss = forward_readouts(
            self.model,
            batch,
            prompt_format.memory,
            torch.ones(batch["target_counts"].shape, device=device),
            self.stage.reduction,
            feedback=feedback_of(self.encoder),
            extra_loss=METHODS[prompt_format.method].extra_loss(self.stage),
            chunk=chunk if chunk and head_makes_logits(plain) else None,
        )
        return loss.per_example_B.sum()

    def take(self, layouts: Sequence[LaidOut], device: torch.device) -> None:
        """Run both passes, with as much memory in use as Adam's numbers will take."""
        with self._as_in_training(device):
            weights = [p for p in self.model.parameters() if p.requires_grad]
            adams = [torch.empty_like(p) for p in weights for _ in range(STATE - 1)]
            self._loss(layouts, device).backward()
            assert len(adams) == (STATE - 1) * len(weights), "held until here"

    def kept_bytes(self, layouts: Sequence[LaidOut]) -> int:
        """Count the bytes that the forward pass keeps for the backward pass, weights left out."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        device = unwrap(self.model).device
        with self._as_in_training(device):
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = self._loss(layouts, device)
            del loss
        return sum(kept.values())
