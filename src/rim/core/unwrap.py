"""The model below its wrapper."""

from __future__ import annotations

from typing import Any

from peft import PeftModel


def unwrap(model: Any) -> Any:
    """The transformers model below a peft wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
