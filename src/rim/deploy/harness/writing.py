"""A folder of tasks for one exported model: the shipped task files, bound to its templates and to
data; and the commands that run them.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from rim.config import ConfigError, DataSource, PromptFormat, TemplatesConfig
from rim.config.recipe_yaml import settings_from_dict
from rim.data.sources import file_source, is_hub, load_examples, write_file
from rim.deploy.export.record import BlockRange, read_record
from rim.results import read_json

Scoring = Literal["rim", "regex"]
VERSION = 1
SHIPPED = Path(__file__).with_name("tasks")
SERVER = "http://localhost:8000/v1/chat/completions"


@dataclass(frozen=True)
class TaskFolder:
    """The tasks that were written, and for which model.

    `stop` is the string of the model's stop token. `to_run` are the tasks for which a file was
    given, or all if none was; `left_out` those that need local questions and have none.
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
    templates = PromptFormat.model_validate(record.prompt_format).templates
    sources = shipped_sources() | {name: _file_source(name, Path(p)) for name, p in data.items()}
    needs_files = scoring == "regex"  # the questions go into the folder, so they must be here
    left_out = [n for n, source in sources.items() if needs_files and source["format"] == "hub"]
    if own := [name for name in left_out if name in data]:
        raise ConfigError(
            f"{own[0]}: with --scoring regex the questions go into the task's folder, and those of "
            "a hub set are not written out; save them as a file, or leave out --scoring regex"
        )
    for name in left_out:
        del sources[name]
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; the task files need one")
    kinds = ("yaml", "jsonl") if needs_files else ("yaml",)
    written = [folder / f"{name}.{kind}" for name in sources for kind in kinds]
    existing = [file for file in written if file.exists()]
    if existing and not overwrite:
        raise ConfigError(
            f"{folder} has a file {existing[0].name!r} already; give --overwrite or another folder"
        )
    read = {Path(source["path"]) for source in sources.values() if "path" in source}
    if inputs := [file for file in existing if file.resolve() in read]:
        raise ConfigError(
            f"{inputs[0]} is one of the data files; give another folder for the tasks"
        )
    folder.mkdir(parents=True, exist_ok=True)
    shared = f"_{scoring}.yaml"
    shutil.copyfile(SHIPPED / shared, folder / shared)
    for name, source in sources.items():
        bound = (
            _bound_to_source(source, templates)
            if scoring == "rim"
            else _bound_to_copy(source, folder / f"{name}.jsonl")
        )
        task = {"task": name, "include": shared, "dataset_kwargs": bound}
        task["metadata"] = {"version": VERSION}
        text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    names = tuple(sorted(sources))
    return TaskFolder(
        folder,
        exported,
        record.blocks,
        read_json(exported / "tokenizer_config.json")["eos_token"],
        names,
        tuple(sorted(data)) or names,
        tuple(sorted(left_out)),
    )


def shipped_sources() -> dict[str, dict[str, Any]]:
    """The data source of each task that this package ships, as a recipe writes it."""
    files = SHIPPED.glob("rim_*.yaml")
    tasks = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return {task["task"]: task["source"] for task in tasks}


def _file_source(name: str, path: Path) -> dict[str, Any]:
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ConfigError(f"a task's name is letters, digits and underscores, got {name!r}")
    found = file_source(path if is_hub(path) else path.resolve())
    source = found.model_dump(mode="json", exclude_defaults=True)
    load_examples(settings_from_dict(DataSource, source, name))  # a bad file is told of here
    return source


def model_command(tasks: TaskFolder, blocks: int | None = None) -> str:
    """The command line, ready for a shell, of a model that transformers runs in the harness's own
    process.

    Args:
        blocks: memory blocks; as in training if left out.

    Raises:
        ConfigError: a number of blocks that the model does not take.
    """
    template = {"blocks": _blocks(tasks, blocks)}
    arguments = {"pretrained": str(tasks.exported), "chat_template_args": template}
    return _command(
        tasks, "--model", "hf", "--model_args", json.dumps(arguments), "--batch_size", "64"
    )


def _bound_to_source(source: dict[str, Any], templates: TemplatesConfig) -> dict[str, Any]:
    """The arguments of `rim.deploy.harness.scoring.load_questions`."""
    marks = {"answer_marker": templates.answer_marker, "step_separator": templates.step_separator}
    tail = {"answer_tail": templates.answer_tail} if templates.answer_tail else {}
    return {"source": source, **marks, **tail}


def _bound_to_copy(source: dict[str, Any], file: Path) -> dict[str, Any]:
    """A file that the harness reads by itself."""
    write_file(file, load_examples(settings_from_dict(DataSource, source, file.stem)))
    return {"data_files": {"test": str(file.resolve())}}


def server_command(tasks: TaskFolder, blocks: int | None = None) -> str:
    """The same for a server that serves the exported folder."""
    # Without a stop string the harness sends an empty list, at which `transformers serve` fails.
    arguments = {"model": str(tasks.exported), "base_url": SERVER, "eos_string": tasks.stop}
    generation = {"chat_template_kwargs": {"blocks": _blocks(tasks, blocks)}}
    model = ("--model", "local-chat-completions", "--model_args", json.dumps(arguments))
    return _command(tasks, *model, "--gen_kwargs", json.dumps(generation))


def _blocks(tasks: TaskFolder, blocks: int | None) -> int:
    if blocks is None:
        return tasks.blocks.default
    tasks.blocks.check(blocks)
    return blocks


def _command(tasks: TaskFolder, *model: str) -> str:
    place = ("--include_path", str(tasks.folder), "--tasks", ",".join(tasks.to_run))
    return shlex.join(["lm_eval", "run", *model, *place, "--apply_chat_template"])
