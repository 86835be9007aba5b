"""`rim ask` and `rim eval`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from rim.cli import common


def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] QUESTION",
            help="Run folder or model folder, and the question; with --server the question alone.",
            show_default=False,
        ),
    ],
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask a running server (`rim serve`) instead of a run."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model of a server that has several.")
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE", help="Environment variable with the server's key; none if left out."
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="K[,K...]",
            help="Memory blocks; several numbers give an answer for each. As in training if left "
            "out.",
        ),
    ] = None,
    all_blocks: Annotated[
        bool, typer.Option("--all-blocks", help="Show the answer after every block.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(min=0.000001, max=1)] = 1.0,
    samples: Annotated[int, typer.Option(min=1, help="Sampled answers (needs a temperature).")] = 1,
    seed: Annotated[int, typer.Option()] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON line instead.")] = False,
    device: common.DeviceOption = None,
) -> None:
    """Ask a trained model one question: a run (`rim ask RUN QUESTION`), or a server that is already
    running (`rim ask --server URL QUESTION`).
    """
    with common.clear_errors():
        from rim.config import ConfigError

        counts = common.block_counts(blocks)
        if server is not None:
            refused = {
                "--all-blocks (ask for --blocks 1,2,3 instead)": all_blocks,
                "--top-k": top_k != 0,
                "--samples": samples != 1,
                "--device": device is not None,
            }
            for option, given in refused.items():
                if given:
                    raise ConfigError(f"a server does not take {option}")
        elif model is not None or api_key_env is not None:
            raise ConfigError("--model and --api-key-env go with --server")
        run, question = _run_and_question(words, server)
        if all_blocks and len(counts) > 1:
            raise ConfigError("--all-blocks goes with one number of --blocks")
        if server is not None:
            from rim.deploy.serve.client import Client

            client = Client(server, model=model, api_key=_key(api_key_env))
            options = {"temperature": temperature, "top_p": top_p, "seed": seed}
            options["max_new_tokens"] = max_new_tokens
            rows = _ask_server(client, question, counts, options)
        else:
            reasoner = common.load(run, device)
            options = {"after": "all" if all_blocks else "final", "max_new_tokens": max_new_tokens}
            options["sampling"] = common.sampling(temperature, top_k, top_p, samples, seed)
            rows = [
                _row(answer)
                for count in counts
                for answer in reasoner.ask_many([question], blocks=count, **options)[0]
            ]
        _show(rows, json_, all_blocks, len(counts) > 1)


def _ask_server(
    client: Any, question: str, counts: list[int | None], options: dict[str, Any]
) -> list[dict[str, Any]]:
    """A server's answer for each number of blocks."""
    if len(counts) > 1:  # a server's first answer is slow: it is not the one to compare
        client.ask(question, blocks=counts[0], max_new_tokens=1)
    return [vars(client.ask(question, blocks=count, **options)) for count in counts]


def _run_and_question(words: list[str], server: str | None) -> tuple[Path, str]:
    """
    Raises:
        ConfigError: a word too many or too few, or an empty question.
    """
    from rim.config import ConfigError

    if server is not None and len(words) != 1:
        raise ConfigError("with --server give the question alone (quoted); the server has a model")
    if server is None and len(words) != 2:
        raise ConfigError(
            'give a run and a question, `rim ask RUN "QUESTION"`, or a server and a question, '
            '`rim ask --server URL "QUESTION"`'
        )
    question = words[-1]
    if not question.strip():
        raise ConfigError("the question is empty")
    return Path(words[0]), question


def _key(variable: str | None) -> str | None:
    """
    Raises:
        ConfigError: the variable is not set.
    """
    from rim.config import ConfigError

    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigError(f"--api-key-env: there is nothing in the variable {variable}")
    return os.environ[variable]


def _row(answer: Any) -> dict[str, Any]:
    """An answer of a run, named as a server's: the blocks before it are those it was asked with."""
    fields = dict(vars(answer))
    return {"blocks": fields.pop("after_block"), **fields}


def _show(rows: list[dict[str, Any]], as_json: bool, all_blocks: bool, several: bool) -> None:
    """Print answers of a run or of a server, one a line."""
    if as_json:
        typer.echo(common.printable(json.dumps(rows, ensure_ascii=False)))
        return
    for row in rows:
        count, answer, text = row["blocks"], row["answer"], row["text"]
        label = f"block {count}: " if all_blocks else f"{count} blocks: " if several else ""
        note = "" if row["finished"] else "  (cut off by --max-new-tokens)"
        if "first_ms" in row:
            note += f"    [first text {row['first_ms']:.0f} ms, all {row['answer_ms']:.0f} ms]"
        shown = answer if text.strip() == answer else f"{answer}    {text!r}"
        common.say(f"{label}{common.escape(common.printable(shown, keep='') + note)}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    data: Annotated[Path, typer.Argument(help="Data file.")],
    format_: common.FormatOption = None,
    blocks: Annotated[
        int | None, typer.Option(min=0, help="Memory blocks; as in training if left out.")
    ] = None,
    limit: common.LimitOption = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Samples per question for pass@k (needs a temperature).")
    ] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.000001, max=1)] = 1.0,
    seed: Annotated[int, typer.Option()] = 0,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    out: Annotated[
        Path | None, typer.Option(help="Result JSON; RUN/evaluations/NAME-kK.json if left out.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier result.")
    ] = False,
    device: common.DeviceOption = None,
) -> None:
    """Score a trained model on a data file: final-block, per-block and any-block accuracy with
    intervals.
    """
    with common.clear_errors():
        from rim.config import ConfigError
        from rim.data.sources import open_file
        from rim.evaluate.accuracy import score, write_evaluation
        from rim.report.tables import evaluation_table
        from rim.train.callbacks import progress_bar

        examples = open_file(data, format_, limit)
        sampling = common.sampling(temperature, 0, top_p, samples, seed)
        reasoner = common.load(run, device)
        count = reasoner.trained_blocks if blocks is None else blocks
        target = out or run / "evaluations" / f"{data.stem}-k{count}.json"
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} exists; give --overwrite or another --out")
        with progress_bar(common.console) as bar:
            task = bar.add_task("answering", total=len(examples), note="")
            result = score(
                reasoner,
                examples,
                blocks=count,
                sampling=sampling,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                progress=lambda done: bar.advance(task, done),
            )
        settings = {"blocks": count, "max_new_tokens": max_new_tokens, "sampling": vars(sampling)}
        record, wrong_file = write_evaluation(result, target, run, data.name, examples, settings)
        common.console.print(evaluation_table(record))
        common.say(f"Result: {target}\nWrong answers: {wrong_file}")
