"""The command line: parses, calls the library, prints. Mistakes end in one sentence and exit code
2.

A command is one function in one of the modules beside this one, and one line here.
"""

from __future__ import annotations

import typer

from rim.cli import (
    answering,
    bench,
    compare,
    controls,
    data,
    export,
    gguf,
    harness,
    serving,
    training,
)

app = typer.Typer(
    name="rim",
    help="Reasoning in Memory: language models that think in memory blocks, not in written words.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",  # paragraphs of docstrings are filled to the width of the terminal
)
app.command()(training.train)
app.command()(answering.ask)
app.command(name="eval")(answering.evaluate)
app.command()(export.export)
app.command()(export.push)
app.command()(serving.serve)
app.command()(gguf.gguf)
app.command(name="lm-eval")(harness.lm_eval)
app.add_typer(data.app, name="data")
app.command()(bench.bench)
app.command()(compare.compare)
app.command()(controls.controls)
app.command()(training.demo)


@app.command()
def version() -> None:
    """Print the version."""
    from rim import __version__

    typer.echo(__version__)
