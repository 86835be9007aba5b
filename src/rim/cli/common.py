"""What every command shares: consoles, errors in one sentence, options, loading."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

console = Console()
error_console = Console(stderr=True)

FORMATS = "jsonl, gsm8k, gsm8k_sentences, gsm8k_aug, gsm_hard, svamp, prosqa, multiplication_file"
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help=f"One of {FORMATS}; guessed from the first record if left out."),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Read only so many examples.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps ...; the best there is if left out.")
]


@contextlib.contextmanager
def clear_errors(after_interrupt: str = "") -> Iterator[None]:
    """Turn the library's own errors into one line; anything else is a bug: its traceback stays.

    Args:
        after_interrupt: what a person who stopped the command can do next.
    """
    from rim.config import ConfigError
    from rim.data.examples import DataError

    try:
        yield
    except (ConfigError, DataError) as error:
        error_console.print(
            f"[bold red]Error:[/] {escape(printable(str(error)))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        error_console.print(f"[bold]Interrupted.[/] {after_interrupt}".rstrip())
        raise typer.Exit(130) from None
    except RuntimeError as error:
        if type(error).__name__ != "TrainingDivergedError":
            raise
        error_console.print(
            f"[bold red]Training stopped:[/] {escape(printable(str(error)))}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(3) from None


def escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def quoted(path: Path) -> str:
    """A path within a command that a person may paste into a shell."""
    return escape(shlex.quote(str(path)))


def printable(text: str, keep: str = "\n\t") -> str:
    """Text of a model or a server as a terminal may have it: no character can command it (Cc) or
    stand there unseen (Cf), and none is beyond UTF-8 (Cs). They are shown as in JSON, so that JSON
    still says the same.

    Args:
        keep: characters that stay nevertheless.
    """
    return "".join(
        json.dumps(character)[1:-1]
        if unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in keep
        else character
        for character in text
    )


def say(text: str) -> None:
    """Print one line as it is: no number colours, no line breaks of our own."""
    console.print(text, highlight=False, soft_wrap=True)


def quiet_libraries() -> None:
    """Libraries' progress bars and advice would drown our own lines; errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def load(run: Path, device: str | None) -> Any:
    quiet_libraries()
    from rim.infer.reasoner import best_device, load

    return load(run, device=device or best_device())


def block_counts(text: str | None) -> list[int | None]:
    """Numbers of memory blocks as people write them, "5" or "0,2,5"; None is the default number.

    Raises:
        ConfigError: anything else.
    """
    from rim.config import ConfigError

    if text is None:
        return [None]
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isascii() and piece.isdigit() for piece in pieces):
        raise ConfigError(f"--blocks takes a number from 0, or several (0,2,5), got {text!r}")
    return [int(piece) for piece in pieces]


def sampling(temperature: float, top_k: int, top_p: float, samples: int, seed: int) -> Any:
    from rim.config import ConfigError
    from rim.infer.sampling import Sampling

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
