"""A folder of tasks for one exported model: the shipped task files, bound to its templates and to
data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from rim.config import ConfigError, DataSource, PromptFormat
from rim.config.recipe_yaml import settings_from_dict
from rim.data.sources import guess_format, load_examples, write_file
from rim.deploy.export.record import BlockRange, read_record

Scoring = Literal["rim", "regex"]
VERSION = 1


@dataclass(frozen=True)
class TaskFolder:
    """What was written, for which model.

    `stop` is the string of the model's stop token. `to_run` are the tasks that somebody gave a file
    for, or all where nobody did; `left_out` those that have no local questions but need them.
    """

    folder: Path
    exported: Path
    blocks: BlockRange
    stop: str
    names: tuple[str, ...]
    to_run: tuple[str, ...]
    left_out: tuple[str, ...]


def write_tasks(
    exported: str | Path,
    out: str | Path,
    data: Mapping[str, str | Path] | None = None,
    *,
    scoring: Scoring = "rim",
    overwrite: bool = False,
) -> TaskFolder:
    """Write task files for an exported model.

    Args:
        data: local files by the task's name, any that `rim eval` reads. A name that is not one of
            the shipped tasks makes a new one. Shipped tasks without a file name a hub data set
            (arithmetic is generated).
        scoring: "rim" calls our own answer parser, so this package must be installed where the
            tasks run; "regex" needs lm_eval alone, puts copies of the questions into the folder,
            and takes the last number of an answer.
        overwrite: replace tasks of the same names.

    Raises:
        ConfigError: not an exported folder, a bad name, no place for the files, or tasks that are
            already there.
        DataError: a data file that cannot be read.
    """
    exported, folder, data = Path(exported), Path(out), data or {}
    record = read_record(exported)
    prompt_format = PromptFormat.model_validate(record.prompt_format)
    sources = shipped_sources() | {name: _file_source(name, Path(p)) for name, p in data.items()}
    needs_files = scoring == "regex"  # the questions go into the folder, so they must be here
    left_out = [n for n, source in sources.items() if needs_files and source["format"] == "hub"]
    for name in left_out:
        del sources[name]
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; the task files need one")
    existing = [name for name in sources if (folder / f"{name}.yaml").exists()]
    if existing and not overwrite:
        raise ConfigError(
            f"{folder} has a task {existing[0]!r} already; give --overwrite or another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    shared = f"_{scoring}.yaml"
    _write(folder / shared, _shipped(shared))
    for name, source in sources.items():
        bound = (
            _bind(source, prompt_format)
            if scoring == "rim"
            else _copy(source, folder / f"{name}.jsonl")
        )
        task = {"task": name, "include": shared, **bound, "metadata": {"version": VERSION}}
        _write(folder / f"{name}.yaml", yaml.safe_dump(task, sort_keys=False, allow_unicode=True))
    names = tuple(sorted(sources))
    return TaskFolder(
        folder,
        exported,
        record.blocks,
        _stop_string(exported),
        names,
        tuple(sorted(data)) or names,
        tuple(sorted(left_out)),
    )


def _stop_string(exported: Path) -> str:
    config = json.loads((exported / "tokenizer_config.json").read_text(encoding="utf-8"))
    return config["eos_token"]


def shipped_sources() -> dict[str, dict[str, Any]]:
    """The data source of each task that this package ships, as a recipe writes it."""
    files = resources.files("rim.deploy.harness").joinpath("tasks").iterdir()
    tasks = [yaml.safe_load(_shipped(f.name)) for f in files if f.name.startswith("rim_")]
    return {task["task"]: task["source"] for task in tasks}


def _shipped(name: str) -> str:
    return resources.files("rim.deploy.harness").joinpath("tasks", name).read_text(encoding="utf-8")


def _file_source(name: str, path: Path) -> dict[str, Any]:
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ConfigError(f"a task's name is letters, digits and underscores, got {name!r}")
    source = {"format": guess_format(path), "path": str(path.resolve())}
    load_examples(settings_from_dict(DataSource, source, name))  # a bad file is told of here
    return source


def _bind(source: dict[str, Any], prompt_format: PromptFormat) -> dict[str, Any]:
    """The arguments of `rim.deploy.harness.scoring.load_questions`."""
    templates = prompt_format.templates
    return {
        "dataset_kwargs": {
            "source": source,
            "answer_marker": templates.answer_marker,
            "step_separator": templates.step_separator,
        }
    }


def _copy(source: dict[str, Any], file: Path) -> dict[str, Any]:
    """Questions and answers as a file that the harness reads by itself."""
    write_file(file, load_examples(settings_from_dict(DataSource, source, file.stem)))
    return {"dataset_kwargs": {"data_files": {"test": str(file.resolve())}}}


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
