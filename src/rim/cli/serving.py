"""`rim serve`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rim.cli import common


def serve(
    path: Annotated[
        Path,
        typer.Argument(metavar="RUN|DIR|GGUF", help="Run folder, exported folder, or GGUF file."),
    ],
    extra: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- ENGINE ARGUMENTS", help="Handed to the engine as they are."),
    ] = None,
    engine: Annotated[
        Literal["auto", "vllm", "transformers", "llama.cpp"],
        typer.Option(help="auto: the first that is installed, in this order."),
    ] = "auto",
    host: Annotated[
        str, typer.Option(help="Address to serve on; anything but loopback opens it to a network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    budget: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Memory blocks of a request that names no number; as in training if left out.",
        ),
    ] = None,
    page: Annotated[
        bool,
        typer.Option(
            "--page", help="Print a web page's address, and let web pages (all) ask the server."
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until the engine must answer.")
    ] = 600.0,
    log: Annotated[
        Path | None,
        typer.Option(
            help="File to which is added what the engine writes; a temporary one if left out."
        ),
    ] = None,
) -> None:
    """Serve a trained model with an installed engine: vLLM, transformers serve or llama.cpp.

    A run is exported first, into RUN/exported, and that export used again as long as the run is the
    same. The server speaks OpenAI chat completions and asks for no key unless LLAMA_API_KEY
    (llama.cpp) or VLLM_API_KEY holds one.

    Arguments of the engine follow two dashes: `rim serve exported -- --dtype bfloat16`.
    """
    with common.clear_errors(), _ended_as_by_ctrl_c():
        from rim.config import ConfigError
        from rim.deploy.serve.greeting import greeting
        from rim.deploy.serve.process import serve as start
        from rim.deploy.serve.subject import needs_export

        if extra and not extra[0].startswith("-"):
            raise ConfigError(
                f"one model at a time: {extra[0]!r} is one too many (the engine's arguments follow "
                "two dashes and begin with one)"
            )
        if needs_export(path):
            common.quiet_libraries()
        with common.console.status("starting") as status:
            server = start(
                path,
                engine=engine,
                host=host,
                port=port,
                budget=budget,
                page=page,
                extra=extra or [],
                timeout=timeout,
                log=log,
                progress=lambda step: status.update(common.escape(step)),
            )
        # Interrupted before this point, it was never of use: `clear_errors` says so.
        try:
            with server:
                typer.echo(greeting(server, budget, page))
                server.wait()
        except KeyboardInterrupt:
            typer.echo("Stopped.")


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """What ends a command from outside ends the engine too; what it was told to
    ignore (as by `nohup`) it ignores.
    """
    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
