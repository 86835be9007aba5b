"""`rim answer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rim.cli import common
from rim.cli.answering import key_of


def answer_questions(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] IN",
            help="Run folder or model folder, and a JSONL with a `question` a line; with --server "
            "the file alone.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="JSONL of the answers, a line for each question."),
    ],
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="local: in this process. ray: in workers of a Ray cluster."),
    ] = "local",
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Models at a time, with --engine ray.")
    ] = 1,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask a running server instead of a run.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model of a server that has several.")
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="VARIABLE", help="Environment variable with the server's key."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(metavar="N", min=1, help="Questions at a server at a time.")
    ] = 8,
    retries: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="How often a question is sent to a server again."),
    ] = 4,
    shard: Annotated[
        str,
        typer.Option(metavar="I/N", help="Every N-th line only, from line I on; counts from 1."),
    ] = "1/1",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue FILE where it stops, or begin it.")
    ] = False,
    blocks: Annotated[
        int | None,
        typer.Option(metavar="K", min=0, help="Memory blocks; as in training if left out."),
    ] = None,
    max_new_tokens: common.MaxNewTokensOption = 64,
    temperature: common.TemperatureOption = 0.0,
    top_p: common.TopPOption = 1.0,
    seed: common.SeedOption = 0,
    batch_size: common.BatchSizeOption = 64,
    json_: common.JsonOption = False,
    device: common.DeviceOption = None,
) -> None:
    """Answer a file of questions into another file, in order, however many there are. A job that
    was stopped in any way continues with --resume, without a lost or a repeated line. Lines that
    cannot be answered say why, and make the exit code 1.
    """
    with common.clear_errors("The same command with --resume continues."):
        from rim.cli.checks import check_model, check_target
        from rim.config import ConfigError
        from rim.deploy.answer.engines import LocalEngine, RayEngine, ServerEngine
        from rim.deploy.answer.job import Shard, answer_file, count_lines

        if len(words) != (1 if server else 2):
            raise ConfigError(
                "give a run and a file, `rim answer RUN IN.jsonl --out OUT.jsonl`, or a server and "
                "a file, `rim answer --server URL IN.jsonl --out OUT.jsonl`"
            )
        if server and (engine != "local" or device is not None):
            raise ConfigError("--engine and --device do not go with --server")
        if not server and (model is not None or api_key_env is not None):
            raise ConfigError("--model and --api-key-env go with --server")
        if engine == "ray" and device is not None:
            raise ConfigError("--device does not go with --engine ray: each worker takes its own")
        part = Shard.parse(shard)
        sampling = common.sampling(temperature, 0, top_p, 1, seed)
        questions = Path(words[-1])
        check_target(out)
        total = count_lines(questions, part) if questions.is_file() else 0
        if server:
            from rim.deploy.serve.client import Client

            client = Client(server, model=model, api_key=key_of(api_key_env), retries=retries)
            options = {"temperature": temperature, "top_p": top_p, "seed": seed}
            chosen = ServerEngine(
                client,
                concurrency=concurrency,
                blocks=blocks,
                max_new_tokens=max_new_tokens,
                **options,
            )
        else:
            run = Path(words[0])
            check_model(run, [blocks], device)
            options = {"blocks": blocks, "max_new_tokens": max_new_tokens, "sampling": sampling}
            if engine == "ray":
                chosen = RayEngine(run, workers=workers, batch_size=batch_size, **options)
            else:
                reasoner = common.load(run, device)
                chosen = LocalEngine(reasoner, run, batch_size=batch_size, **options)
        person = common.console_for(json_)
        with common.progress("answering", total, person) as advance:
            done = answer_file(questions, out, chosen, shard=part, resume=resume, progress=advance)
        earlier = f", {done['earlier']} of them earlier" if done["earlier"] else ""
        failed = f", {done['errors']} without an answer (see `error`)" if done["errors"] else ""
        common.say(
            f"{done['lines']} lines in {out}{earlier}{failed}; "
            f"{done['lines_per_second']:.1f} lines a second",
            person,
        )
        if json_:
            common.print_json(done)
        if done["errors"]:
            raise typer.Exit(1)
