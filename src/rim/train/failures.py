"""What a person reads when training stops by itself: what happened, what is left, what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path

from torch.distributed.checkpoint.api import CheckpointException

from rim.config import StageConfig
from rim.train.arguments import multiplies_bfloat16
from rim.train.checkpoints import CheckpointError
from rim.train.memory import smaller
from rim.train.out_of_memory import (
    TrainingMemoryError,
    ValidationMemoryError,
    is_out_of_memory,
)
from rim.train.trainer import TrainingDivergedError

#: What ends a run in one sentence, beside wrong settings and wrong data.
STOPPED = (TrainingDivergedError, CheckpointError, TrainingMemoryError)


def advises_resume(error: Exception) -> bool:
    """Whether the error's own sentence says to go on with --resume, checkpoint or not."""
    return isinstance(error, CheckpointError) or (
        isinstance(error, TrainingMemoryError) and error.resumable
    )


@contextlib.contextmanager
def explained(
    stage: StageConfig,
    weights: str,
    kept: Callable[[], Path | None],
    reduced: Callable[[int], bool],
) -> Generator[None]:
    """Errors of a stage's training, with the last good weights and a way out.

    Args:
        stage: its micro-batches are settled.
        weights: the type that the loaded model's have.
        kept: looks for the last whole checkpoint, or the stage before.
        reduced: asked, with a smaller micro-batch, whether a resumed run will take it by itself.
    """
    try:
        yield
    except TrainingDivergedError as error:
        raise TrainingDivergedError(
            f"{error} of stage {stage.name!r}; last good weights: {kept() or 'none yet'}. "
            f"Try a lower learning_rate (now {stage.learning_rate}) or a longer warmup"
        ) from None
    except (CheckpointError, CheckpointException) as error:  # of shards; torch's is no Exception
        raise CheckpointError(
            f"{error}; last whole checkpoint: {kept() or 'none yet'}. Mend that, and continue "
            "with --resume"
        ) from None
    except ValidationMemoryError as error:
        smaller_batch = max(1, error.batch_size // 2)
        raise TrainingMemoryError(
            f"out of memory in stage {stage.name!r} while validating in batches of "
            f"{error.batch_size}; last whole checkpoint: {kept() or 'none yet'}. --resume --set "
            f"validation.batch_size={smaller_batch} goes on (the same losses but for rounding); "
            "fewer validation.max_new_tokens in a new run would help too",
            resumable=True,
        ) from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _out_of_memory(stage, weights, kept(), reduced) from None


def _out_of_memory(
    stage: StageConfig, weights: str, kept: Path | None, reduced: Callable[[int], bool]
) -> TrainingMemoryError:
    micro = stage.micro_batch_size
    assert micro != "auto", "settled before training begins"
    less = smaller(stage, micro)
    if less is None:
        way = "micro_batch_size is 1 already"
    elif reduced(less):
        way = f"--resume goes on with micro-batches of {less}"
    else:
        way = (
            f"--resume --set stages.{stage.name}.micro_batch_size={less} goes on (the same losses "
            "but for rounding)"
        )
    other = ["a smaller validation.batch_size"]
    if not stage.bf16 and weights == "float32" and multiplies_bfloat16():
        other.insert(0, "bf16: true")
    if not stage.gradient_checkpointing:
        other.insert(0, "gradient_checkpointing: true")
    if stage.packing:
        other.insert(-1, "packing: false")
    listed = " or ".join(filter(None, (", ".join(other[:-1]), other[-1])))
    return TrainingMemoryError(
        f"out of memory in stage {stage.name!r} with micro-batches of {micro} examples; last whole "
        f"checkpoint: {kept or 'none yet'}. {way[0].upper()}{way[1:]}; in a new run {listed} "
        "would help too",
        resumable=less is not None,
    )
