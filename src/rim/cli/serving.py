"""`rim serve`."""

from __future__ import annotations

import signal
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
        typer.Option(help="File for what the engine writes; a temporary one if left out."),
    ] = None,
) -> None:
    """Serve a trained model with an installed engine: vLLM, transformers serve or llama.cpp.

    A run is exported first, into RUN/exported, and that export used again as long as the run is the
    same. The server speaks OpenAI chat completions and has no authentication.

    Arguments of the engine follow two dashes: `rim serve exported -- --dtype bfloat16`.
    """
    with common.clear_errors():
        from rim.serving.greeting import greeting
        from rim.serving.process import serve as start
        from rim.serving.subject import needs_export

        if needs_export(path):
            common.quiet_libraries()
        for name in ("SIGTERM", "SIGHUP"):  # ended from outside, as by Ctrl-C
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), _interrupt)
        try:
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
            with server:
                typer.echo(greeting(server, budget, page))
                server.wait()
        except KeyboardInterrupt:
            typer.echo("Stopped.")


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
