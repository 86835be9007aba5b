"""The command line: parses, calls the library, prints. Mistakes end in one sentence and exit code
2.

A command is one function in one of the modules beside this one, and one line here. It first asks
`checks` for mistakes, and imports torch after that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from rim.cli import (
    answer,
    ask,
    bench,
    compare,
    controls,
    data,
    evaluate,
    export,
    gguf,
    lm_eval,
    look_inside,
    report,
    reproduce,
    serve,
    study,
    train,
)
from rim.cli.help import PlainGroup, add_command

app = typer.Typer(
    name="rim",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",  # paragraphs of docstrings are filled to the width of the terminal
    cls=PlainGroup,
)

#: The commands as `rim --help` groups them.
GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Train and compare": {
        "train": train.train,
        "compare": compare.compare,
        "study": study.study,
        "reproduce": reproduce.reproduce,
        "demo": train.demo,
        "bench": bench.bench,
    },
    "Ask and evaluate": {
        "ask": ask.ask,
        "eval": evaluate.evaluate,
        "answer": answer.answer_questions,
    },
    "Look inside": {
        "controls": controls.controls,
        "analyze": look_inside.analyze,
        "explain": look_inside.explain,
        "report": report.report,
    },
    "Deploy": {
        "export": export.export,
        "gguf": gguf.gguf,
        "serve": serve.serve,
        "push": export.push,
        "lm-eval": lm_eval.lm_eval,
    },
}
for _group, _commands in GROUPS.items():
    for _name, _command in _commands.items():
        add_command(app, _command, _name, rich_help_panel=_group)
app.add_typer(data.app, name="data", rich_help_panel="Data")


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Reasoning in Memory: language models that think in memory blocks, not in written words."""
    if version:
        from rim import __version__

        typer.echo(__version__)
        raise typer.Exit
