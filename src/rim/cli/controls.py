"""`rim controls`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rim.cli import common


def controls(
    run: Annotated[Path, typer.Argument(help="Run or model folder of a method with blocks.")],
    data: Annotated[Path, typer.Argument(help="Data file.")],
    format_: common.FormatOption = None,
    limit: common.LimitOption = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    out: Annotated[Path | None, typer.Option(help="Also write the result JSON here.")] = None,
    device: common.DeviceOption = None,
) -> None:
    """Do the blocks compute? Ask a trained model again with its blocks removed, zeroed, shuffled,
    swapped or multiplied, and with the question hidden from the answer: one verdict each.
    """
    with common.clear_errors():
        from rim.data.sources import data_hash, open_file
        from rim.evaluate.accuracy import score
        from rim.evaluate.controls import num_answers, run_controls
        from rim.evaluate.verdicts import control_verdicts
        from rim.results import environment, write_json
        from rim.train.callbacks import progress_bar

        examples = open_file(data, format_, limit)
        reasoner = common.load(run, device)
        options: dict[str, Any] = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
        total = num_answers(reasoner.trained_blocks, len(examples)) + len(examples)
        with progress_bar(common.console) as bar:
            task = bar.add_task("answering", total=total, note="")

            def advance(done: int) -> None:
                bar.advance(task, done)

            result = score(reasoner, examples, all_blocks=False, progress=advance, **options)
            outcomes = run_controls(reasoner, examples, progress=advance, **options)
        records = [outcome.as_record() for outcome in outcomes]
        verdicts = control_verdicts(run.name, [result.right["final"]], [records])
        for verdict in verdicts:
            common.say(common.escape(verdict["line"]))
        if out is not None:
            content = {
                "run": run.name,
                "data": {"name": data.name, "examples": len(examples), "hash": data_hash(examples)},
                "settings": options,
                "right": result.right["final"],
                "controls": records,
                "verdicts": verdicts,
                "environment": environment(),
            }
            write_json(out, content)
            common.say(f"Result: {out}")
