"""What every command shares: consoles, errors in one sentence, options, loading."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from rim.cli.help import refuse_unused
from rim.report.text import printable

console = Console()
error_console = Console(stderr=True)

# Failures of the file system that are no fault of the program.
_NAMES = "EACCES EPERM EROFS ENOSPC EDQUOT ENAMETOOLONG ENOTDIR EISDIR"
_MACHINE = {getattr(errno, name, None) for name in _NAMES.split()}


#: By name, for their modules need torch.
_STOPPED = ("TrainingDivergedError", "CheckpointError", "TrainingMemoryError")
_LESS_MEMORY = (
    "Take fewer at a time (--batch-size; micro_batch_size in a recipe), --dtype bfloat16, or "
    "another device"
)


@contextlib.contextmanager
def clear_errors(after_interrupt: str = "") -> Generator[None]:
    """Turn the library's own errors into one line; anything else is a bug: its traceback stays.

    Args:
        after_interrupt: what a person who stopped the command can do next.
    """
    from rim.config import ConfigError
    from rim.data.examples import DataError

    try:
        yield
    except (ConfigError, DataError) as error:
        _fail("Error:", str(error), 2)
    except KeyboardInterrupt as error:
        # A termination that somebody asked for has words and a number of its own.
        _fail(str(error) or "Interrupted.", after_interrupt, getattr(error, "exit_code", 130))
    except OSError as error:
        if error.errno not in _MACHINE:
            raise
        # A file that is open already says only what is wrong.
        where = f"{error.filename}: " if isinstance(error.filename, str | os.PathLike) else ""
        _fail("Error:", f"{where}{error.strerror}", 2)
    except typer.Exit:  # a RuntimeError, which says nothing of memory
        raise
    except (RuntimeError, MemoryError) as error:
        if type(error).__name__ in _STOPPED:
            _fail("Training stopped:", str(error), 3)
        from rim.train.out_of_memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _fail("Out of memory:", f"{first_line(error)}. {_LESS_MEMORY}", 3)


def _fail(what: str, why: str, code: int) -> NoReturn:
    colour = "bold" if code > 128 else "bold red"
    line = f"[{colour}]{what}[/] {escape(printable(why))}".rstrip()
    error_console.print(line, highlight=False, soft_wrap=True)
    raise typer.Exit(code) from None


def quoted(path: Path) -> str:
    """A path within a command that a person may paste into a shell."""
    return shlex.quote(str(path))


def console_for(as_json: bool) -> Console:
    """Where text for people goes: stdout, unless that is kept for JSON."""
    return error_console if as_json else console


def say(text: str, on: Console | None = None, style: str | None = None) -> None:
    """Print one line as it is: no number colours, no markup, no line breaks of our own, nothing
    that commands a terminal.
    """
    (on or console).print(
        printable(text), style=style, highlight=False, markup=False, soft_wrap=True
    )


def print_json(content: Any) -> None:
    """The one JSON document of `--json`, on one line; paths are written as text."""
    typer.echo(printable(json.dumps(content, ensure_ascii=False, default=str), keep=""))


def printable_tree(content: Any) -> Any:
    """Nested dicts and lists whose texts are `printable`, for tables."""
    if isinstance(content, dict):
        return {key: printable_tree(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [printable_tree(value) for value in content]
    return printable(content, keep="") if isinstance(content, str) else content


@contextlib.contextmanager
def progress(title: str, total: int, on: Console) -> Generator[Callable[..., None]]:
    """Yield a callback that advances a bar: by how much, and perhaps a note, or a total that is
    known by then. The bar leaves the screen if the work fails.
    """
    from rim.report.progress import progress_bar

    with progress_bar(on) as bar:
        task = bar.add_task(title, total=total, note="")
        try:
            yield lambda done, note="", total=None: bar.update(
                task, advance=done, note=note, total=total
            )
        except BaseException:
            bar.live.transient = True
            bar.remove_task(task)
            raise


def tell_of_more(counts: Sequence[int | None], trained: Any) -> None:
    """Note on stderr that more blocks are asked for than in training: few such answers are good."""
    most = max((count or 0 for count in counts), default=0)
    if most > trained.trained_blocks:
        say(
            f"Note: {most} blocks, and the model was trained with {trained.trained_blocks} at most",
            error_console,
        )


def quiet_libraries() -> None:
    """Switch off other libraries' progress bars and advice; errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def load(run: Path, device: str | None, dtype: str | None = None) -> Any:
    """A trained model on a device, for asking.

    Raises:
        ConfigError: no such device here, or files that cannot be read.
    """
    quiet_libraries()
    from safetensors import SafetensorError

    from rim.config import ConfigError
    from rim.infer.reasoner import load

    chosen = available_device(device)
    try:
        return load(run, device=chosen, dtype=dtype)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"the model in {run} cannot be read, a file seems to be damaged: {first_line(error)}"
        ) from None


def available_device(word: str | None) -> str:
    """The device asked for, or the best there is.

    Raises:
        ConfigError: this machine has none of the kind.
    """
    import torch

    from rim.config import ConfigError
    from rim.infer.reasoner import best_device

    if word is None:
        return best_device()
    try:
        torch.zeros(1, device=word)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"there is no device {word!r} here ({first_line(error)}); try --device cpu"
        ) from None
    return word


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, without its advice."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def sampling(temperature: float, top_k: int, top_p: float, samples: int, seed: int) -> Any:
    from rim.config import ConfigError
    from rim.infer.sampling import Sampling

    if temperature == 0:
        refuse_unused("only with a --temperature above 0", "top_k", "top_p", "seed")
    try:
        return Sampling(temperature, top_k, top_p, samples, seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None


SettingsT = TypeVar("SettingsT")


def validated(kind: type[SettingsT], values: dict[str, Any], option: str = "--") -> SettingsT:
    """Settings from options; the first thing wrong becomes one sentence.

    Args:
        option: what stands before a setting's name in that sentence.
    """
    from pydantic import ValidationError

    from rim.config import ConfigError

    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = option + str(first["loc"][0]).replace("_", "-") + ": " if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}{message}, got {first['input']!r}") from None
