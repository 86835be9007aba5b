"""A trained model's folder, as far as it is read without torch: its place, what `rim.json` says."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from rim.config import ConfigError, ModelConfig, PromptFormat, Settings
from rim.config.missing import no_such
from rim.results import read_json

S = TypeVar("S", bound=Settings)

FORMAT_FILE = "rim.json"
#: What looking inside and calibrating write beside a model, when its own folder is named: not the
#: model's, so no hash of a model counts them.
TRUST_PROBE_FILE = "trust_probe.safetensors"
VALUE_PROBES_FILE = "value_probes.safetensors"
SELECTORS_FILE = "selectors.json"
WRITTEN_LATER = frozenset({TRUST_PROBE_FILE, VALUE_PROBES_FILE, SELECTORS_FILE})


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights, by name."""
    return sorted(f for f in folder.glob("*.safetensors") if f.name not in WRITTEN_LATER)


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
        told = no_such("run or model folder", path)
        if not path.parent.exists() and "did you mean" not in told:
            told += "; `rim train` and `rim demo` make runs"
        raise ConfigError(told)
    if (path / "config.yaml").exists():
        raise ConfigError(
            f"the run {path} is not finished; continue it with `rim train ... --resume`"
        )
    raise ConfigError(
        f"{path} is neither a run folder (with model/) nor a model folder (with rim.json)"
    )


def has_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists()


def local_model_folder(path: Path) -> Path | None:
    """A local model folder: the path itself, or a run folder's `model`."""
    for folder in (path, path / "model"):
        if (folder / "config.json").exists() or has_adapter(folder):
            return folder
    if path.exists():
        raise ConfigError(
            f"{path} exists but holds no model (no config.json); did that run finish?"
        )
    return None


def read_prompt_format(folder: Path) -> PromptFormat:
    """The prompt format saved with a model.

    Raises:
        ConfigError: the folder was not written by RiM, or its `rim.json` is broken.
    """
    return _read(folder, "prompt_format", PromptFormat)


def read_model_config(folder: Path) -> ModelConfig:
    """The model settings saved with a model: where it came from, how it is loaded."""
    return _read(folder, "model", ModelConfig)


def _read(folder: Path, part: str, settings: type[S]) -> S:
    file = folder / FORMAT_FILE
    try:
        description = read_json(file)
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no {FORMAT_FILE}: not a model trained with RiM") from None
    except ValueError as error:  # JSON or UTF-8
        raise ConfigError(f"{file} is broken ({error}); copy the model folder again") from None
    if not isinstance(description, dict) or not isinstance(description.get(part), dict):
        raise ConfigError(f"{file} is broken: {part!r} is missing; copy the model folder again")
    try:
        return settings.model_validate(description[part])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (part, *first["loc"])))
        raise ConfigError(
            f"{file} does not fit this version of RiM: {where}: {first['msg']}"
        ) from None
