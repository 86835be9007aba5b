"""A trained model's folder, as far as it is read without torch: its place, what `rim.json` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rim.config import ConfigError, ModelConfig, PromptFormat

FORMAT_FILE = "rim.json"


def find_model_dir(path: str | Path) -> Path:
    """The model folder that a person means: a run folder or the model folder itself.

    Raises:
        ConfigError: neither; the message says what was looked for.
    """
    path = Path(path)
    for folder in (path / "model", path):
        if (folder / FORMAT_FILE).exists():
            return folder
    if not path.exists():
        raise ConfigError(f"no such run or model folder: {path}")
    if (path / "config.yaml").exists():
        raise ConfigError(
            f"the run {path} is not finished; continue it with `rim train ... --resume`"
        )
    raise ConfigError(
        f"{path} is neither a run folder (with model/) nor a model folder (with rim.json)"
    )


def read_prompt_format(folder: Path) -> PromptFormat:
    """The prompt format saved with a model.

    Raises:
        ConfigError: the folder was not written by RiM.
    """
    return PromptFormat.model_validate(_read_description(folder)["prompt_format"])


def read_model_config(folder: Path) -> ModelConfig:
    """The model settings saved with a model: where it came from, how it is loaded."""
    return ModelConfig.model_validate(_read_description(folder)["model"])


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / FORMAT_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no {FORMAT_FILE}: not a model trained with RiM") from None
