"""`rim serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
        Literal["auto", "transformers", "vllm", "llama.cpp"],
        typer.Option(
            metavar="NAME",
            help="transformers, vllm or llama.cpp; auto: the first installed, in this order.",
        ),
    ] = "auto",
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST", help="Address to serve on; anything but loopback opens it to a network."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="Port to serve on.")
    ] = 8000,
    blocks: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="K",
            help="Memory blocks of a request that names no number; as in training if left out.",
        ),
    ] = None,
    page: Annotated[
        bool,
        typer.Option(
            "--page", help="Print a web page's address, and let web pages (all) ask the server."
        ),
    ] = False,
) -> None:
    """Serve a trained model with an installed engine: transformers serve, vLLM or llama.cpp.

    A run is exported first, into RUN/exported, and that export used again as long as the run is the
    same. Then this command becomes the engine. It speaks OpenAI chat completions and asks for no
    key unless LLAMA_API_KEY (llama.cpp) or VLLM_API_KEY holds one.

    Arguments of the engine follow two dashes: `rim serve exported -- --dtype bfloat16`.
    """
    with common.clear_errors():
        from rim.config import ConfigError
        from rim.deploy.serve import greeting, plan_server

        if extra and not extra[0].startswith("-"):
            raise ConfigError(
                f"one model at a time: {extra[0]!r} is one too many (the engine's arguments follow "
                "two dashes and begin with one)"
            )

        def plan():
            return plan_server(
                path,
                engine=engine,
                host=host,
                port=port,
                blocks=blocks,
                page=page,
                extra=extra or [],
            )

        planned = plan()
        if planned.subject.run is not None:
            _export(planned.subject.run, planned.model)
            planned = plan()
        typer.echo(greeting(planned))  # it flushes, which the end of this process would not
        planned.start()


def _export(run: Path, folder: str) -> None:
    common.say(f"Exporting the run into {common.escape(folder)} first.")
    common.quiet_libraries()
    from rim.deploy.export import export_run

    with common.console.status("exporting") as status:
        export_run(run, folder, progress=lambda step: status.update(f"exporting: {step}"))
