"""Mistakes that are found without torch, whose import alone takes seconds: every command asks these
first, and imports what is heavy afterwards.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rim.cli.hub import check_base
from rim.config import ConfigError, PromptFormat, Recipe
from rim.config.missing import no_such
from rim.data.examples import DataError
from rim.models.folder import find_model_dir, has_adapter, read_model_config, read_prompt_format

#: For models that state no number of positions: more blocks than anybody means.
MOST_BLOCKS = 10_000

#: Bytes of data that are read once more than needed, so that mistakes in them are told at once.
READ_TWICE = 20_000_000

#: Trackers of transformers' Trainer, and the packages one of which each needs (kubeflow: none).
TRACKERS: dict[str, tuple[str, ...]] = {
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "kubeflow": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
}
_OTHERS = "clearml codecarbon comet_ml dagshub dvclive mlflow neptune swanlab trackio wandb"
TRACKERS |= {name: (name,) for name in _OTHERS.split()}

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|npu|hpu)(:\d+)?")


def check_device(word: str | None) -> None:
    """Whether the word names a device; whether there is one, torch alone knows.

    Raises:
        ConfigError: it does not.
    """
    if word is not None and not _DEVICE.fullmatch(word):
        hint = "; a GPU of NVIDIA or AMD is cuda" if word.lower().startswith("gpu") else ""
        raise ConfigError(f"--device takes cpu, cuda, cuda:1, mps or xpu, got {word!r}{hint}")


def check_model(run: Path, blocks: Sequence[int | None] = (), device: str | None = None) -> Path:
    """The folder of a trained model that can be asked with so many blocks on such a device.

    Raises:
        ConfigError: there is none, its base is out of reach, or it has too few positions.
    """
    check_device(device)
    folder = find_model_dir(run)
    prompt_format, config = read_prompt_format(folder), read_model_config(folder)
    sizes = folder
    if has_adapter(folder) and config.base:
        check_base(config.base, config.revision)
        sizes = Path(config.base)
    for count in blocks:
        _check_blocks(count or 0, prompt_format, _positions(sizes))
    return folder


def _check_blocks(count: int, prompt_format: PromptFormat, positions: int | None) -> None:
    """A bound from below: question and answer need positions too, and the decoder counts them."""
    memory = prompt_format.memory
    tokens = memory.tokens + (2 if memory.framing == "each" else 0)
    most = MOST_BLOCKS if positions is None else (positions - 1) // tokens
    if count > most:
        why = (
            "no question needs more"
            if positions is None
            else f"the model has {positions:,} positions"
        )
        raise ConfigError(f"--blocks {count} is too many: {why}, give at most {most}")


def _positions(folder: Path) -> int | None:
    """How many positions a model folder's config.json states; None if it is silent or elsewhere."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(config, dict) and isinstance(config.get(name), int):
            return config[name]
    return None


def check_target(path: Path | None, *, overwrite: bool = True) -> None:
    """Whether a result can be written to a path. It is written beside it and moved there, which
    would put a file in the place of a device or a link.

    Raises:
        ConfigError: something else is there, or nothing may be written.
    """
    if path is None:
        return
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ConfigError(
            f"{path} is not a regular file and stays as it is; name a file (--json prints)"
        )
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; give --overwrite or another --out")
    check_folder(path.parent)


def targets(out: Path | None, counts: Sequence[int | None]) -> list[Path]:
    """A file for each number of blocks: `--out` itself for one, FILE-kK.json for several; none
    where it is left out.
    """
    if out is None or len(counts) == 1:
        return [] if out is None else [out]
    return [out.with_name(f"{out.stem}-k{count}{out.suffix}") for count in counts]


def check_folder(path: Path) -> None:
    """Whether a folder can be written to, or made.

    Raises:
        ConfigError: a file is in the way, or it is not allowed.
    """
    above = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not above.is_dir():
        raise ConfigError(f"{path} cannot be a folder: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{path} cannot be written to: no permission in {above}")


def check_recipe(recipe: Recipe, *, needs_base: bool = True) -> None:
    """Whether files, trackers and base of a training recipe are there, and its run can be written.

    Args:
        needs_base: the base is loaded for certain, and is there already.

    Raises:
        ConfigError, DataError: one of them is not.
    """
    from rim.data.sources import is_hub

    check_folder(Path(recipe.runs_dir))
    for source in filter(None, (recipe.data.train, recipe.data.validation)):
        files = [source.path] if source.path and source.format != "hub" else []
        for name in (*files, *source.exclude):
            if not is_hub(name) and not Path(name).exists():
                raise DataError(no_such("file", name))
    _check_trackers(recipe.report_to)
    if recipe.model.base is not None and needs_base:
        check_base(recipe.model.base, recipe.model.revision)


def check_data(recipe: Recipe) -> None:
    """Columns, records and the questions held out, of files that are read in no time: training
    reads them only after torch was loaded.

    Raises:
        DataError: one of them is wrong.
    """
    from rim.data.training import load_training_data

    sources = [s for s in (recipe.data.train, recipe.data.validation) if s is not None]
    if any(source.path is None or source.format in ("hub", "parquet") for source in sources):
        return
    if os.environ.get("RANK", "0") != "0":  # the first of several processes says it for all
        return
    names = [name for s in sources for name in (s.path, *s.exclude) if name is not None]
    files = [Path(name) for name in names]
    if all(file.is_file() for file in files) and sum(f.stat().st_size for f in files) < READ_TWICE:
        load_training_data(recipe.data, recipe.seed)


def _check_trackers(names: Sequence[str]) -> None:
    for name in names:
        if name in ("all", "none") or TRACKERS.get(name) == ():
            continue
        packages: tuple[str, ...] = TRACKERS.get(name, (name,) if name.isidentifier() else ())
        if any(importlib.util.find_spec(package) for package in packages):
            continue
        if name in TRACKERS:
            raise ConfigError(
                f"report_to: {name} is not installed; `pip install {packages[0]}`, or leave it out"
            )
        nearest = difflib.get_close_matches(name, TRACKERS, 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(TRACKERS)}"
        raise ConfigError(f"report_to: no tracker {name!r}; {hint}")


def comma_separated(option: str, text: str | None, *, least: int = 0) -> list[int] | None:
    """Whole numbers as people write them, "5" or "0,2,5"; None stays None.

    Raises:
        ConfigError: anything else.
    """
    if text is None:
        return None
    pieces = [piece.strip() for piece in text.split(",")]
    # The length is bounded, for int() refuses thousands of digits with a message of its own.
    if not all(p.isascii() and p.isdigit() and len(p) < 19 and int(p) >= least for p in pieces):
        raise ConfigError(
            f"{option} takes a number from {least}, or several (2,5,8), got {text[:40]!r}"
        )
    return [int(piece) for piece in pieces]


def block_counts(text: str | None, *, least: int = 0) -> list[int | None]:
    """Values of `--blocks`, each once; [None] (as in training) where it is left out.

    Raises:
        ConfigError: not a number from `least`, nor several.
    """
    counts: list[Any] = comma_separated("--blocks", text, least=least) or [None]
    return list(dict.fromkeys(counts))
