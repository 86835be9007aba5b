"""The command lines that run written tasks, ready to paste into a shell."""

from __future__ import annotations

import json
import shlex
from typing import Any

from rim.deploy.harness.writing import TaskFolder

SERVER = "http://localhost:8000/v1/chat/completions"


def model_command(tasks: TaskFolder, blocks: int | None = None) -> str:
    """Run by transformers in the harness's own process.

    Args:
        blocks: memory blocks; as in training if left out.

    Raises:
        ConfigError: a number of blocks that the model does not take.
    """
    arguments = {
        "pretrained": str(tasks.exported),
        "chat_template_args": {"blocks": _blocks(tasks, blocks)},
    }
    return _command(
        tasks, "--model", "hf", "--model_args", json.dumps(arguments), "--batch_size", "64"
    )


def server_command(tasks: TaskFolder, blocks: int | None = None, url: str = SERVER) -> str:
    """Sent to a server that serves the exported folder."""
    # Without a stop string the harness sends an empty list, at which `transformers serve` fails.
    arguments = {"model": str(tasks.exported), "base_url": url, "eos_string": tasks.stop}
    generation = {"chat_template_kwargs": {"blocks": _blocks(tasks, blocks)}}
    return _command(
        tasks,
        "--model",
        "local-chat-completions",
        "--model_args",
        json.dumps(arguments),
        "--gen_kwargs",
        json.dumps(generation),
    )


def _blocks(tasks: TaskFolder, blocks: int | None) -> int:
    if blocks is None:
        return tasks.blocks.default
    tasks.blocks.check(blocks)
    return blocks


def _command(tasks: TaskFolder, *model: Any) -> str:
    parts = ["lm_eval", "run", *model]
    parts += ["--include_path", str(tasks.folder), "--tasks", ",".join(tasks.to_run)]
    return shlex.join([*parts, "--apply_chat_template"])
