"""`rim serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rim.cli import common


def serve(
    path: Path,
    extra: list[str] | None = None,
    *,
    engine: Literal["auto", "transformers", "vllm", "llama.cpp"] = "auto",
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    blocks: Annotated[int | None, typer.Option(min=0)] = None,
    page: bool = False,
) -> None:
    """Serve a trained model with an installed engine: transformers serve, vLLM or llama.cpp.

    A run is exported first, into RUN/exported, and that export used again as long as the run is the
    same. Then this command becomes the engine. It speaks OpenAI chat completions and asks for no
    key unless LLAMA_API_KEY (llama.cpp) or VLLM_API_KEY holds one.

    Arguments of the engine follow two dashes: `rim serve exported -- --dtype bfloat16`.

    Args:
        path (RUN|DIR|GGUF): Run folder, exported folder, or GGUF file.
        extra (-- ENGINE ARGUMENTS): Handed to the engine as they are.
        engine (NAME): transformers, vllm or llama.cpp; auto: the first installed, in this order.
        host (HOST): Address to serve on; anything but loopback opens it to a network.
        port (N): Port to serve on.
        blocks (K): Memory blocks of a request that names no number; as in training if left out.
        page: Print a web page's address, and let web pages (all) ask the server.
    """
    with common.clear_errors():
        from rim.config import ConfigError
        from rim.deploy.serve import check_port, greeting, plan_server
        from rim.deploy.serve.start import trained_question

        if extra and not extra[0].startswith("-"):
            raise ConfigError(
                f"one model at a time: {extra[0]!r} is one too many (the engine's arguments follow "
                "two dashes and begin with one)"
            )

        options: dict[str, Any] = {"engine": engine, "host": host, "port": port}
        options |= {"blocks": blocks, "page": page, "extra": extra or []}
        planned = plan_server(path, **options)
        if not any(argument.startswith("--uds") for argument in extra or ()):
            check_port(host, port)
        if planned.subject.run is not None:
            _export(planned.subject.run, planned.model)
            planned = plan_server(path, **options)
        # It flushes, which the end of this process would not.
        typer.echo(greeting(planned, trained_question(path)))
        planned.start()


def _export(run: Path, folder: str) -> None:
    common.say(f"Exporting the run into {folder} first.")
    common.quiet_libraries()
    from rim.deploy.export import export_run

    with common.console.status("exporting") as status:
        export_run(run, folder, progress=lambda step: status.update(f"exporting: {step}"))
