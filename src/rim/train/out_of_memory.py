"""What is said where training or validation finds no memory."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch
from accelerate.utils.memory import should_reduce_batch_size


class TrainingMemoryError(RuntimeError):
    """Training did not fit into memory; the last checkpoint is as it was.

    resumable: the message says how --resume goes on, with or without a checkpoint.
    """

    def __init__(self, message: str, *, resumable: bool = False):
        super().__init__(message)
        self.resumable = resumable


class ValidationMemoryError(RuntimeError):
    """Validation in batches of so many did not fit; smaller micro-batches are no help."""

    def __init__(self, batch_size: int):
        super().__init__(f"out of memory while validating in batches of {batch_size}")
        self.batch_size = batch_size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is some device's way to say that it has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # accelerate's test looks into the error's first argument, which of other errors is no text.
    if not isinstance(error, RuntimeError) or not error.args or not isinstance(error.args[0], str):
        return False
    return should_reduce_batch_size(error)


@contextlib.contextmanager
def validating(batch_size: int) -> Generator[None]:
    """Raise `ValidationMemoryError` for memory that ran out in here."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValidationMemoryError(batch_size) from error
