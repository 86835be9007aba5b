"""The model below its wrappers."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from torch.nn.parallel import DistributedDataParallel


def unwrap(model: Any) -> Any:
    """The transformers model below the wrappers of several processes and of peft."""
    if isinstance(model, DistributedDataParallel):
        model = model.module
    return model.get_base_model() if isinstance(model, PeftModel) else model
