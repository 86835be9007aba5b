"""`rim answer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rim.cli import common
from rim.cli.ask import key_of, token_ids
from rim.cli.columns import reading
from rim.cli.common import tell_of_more
from rim.cli.help import Natural, NotNegative, Positive, refuse_unused

NaturalOrNone = Annotated[int | None, typer.Option(min=0)]


def answer_questions(
    words: list[str],
    *,
    out: Path,
    column: list[str] | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: Positive = 1,
    server: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    forbid: str | None = None,
    concurrency: Positive = 8,
    retries: Natural = 4,
    shard: str = "1/1",
    resume: bool = False,
    blocks: NaturalOrNone = None,
    max_new_tokens: Positive = 64,
    temperature: NotNegative = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: Positive = 64,
    json_: bool = False,
    device: str | None = None,
) -> None:
    """Answer a file of questions into another file, in order, however many there are. A job that
    was stopped in any way continues with --resume, without a lost or a repeated line. Lines that
    cannot be answered say why, and make the exit code 1.

    Args:
        words ([RUN] IN): Run folder or model folder, and a JSONL with a `question` a line; with
            --server the file alone.
        out (FILE): JSONL of the answers, a line for each question.
        column (ROLE=NAME): question=NAME: what the file calls its questions.
        engine (NAME): local: in this process. ray: in workers of a Ray cluster.
        workers (N): Models at a time, with --engine ray.
        server (URL): Ask a running server instead of a run.
        model (NAME): Model of a server that has several.
        api_key_env (VARIABLE): Environment variable with the server's key.
        concurrency (N): Questions at a server at a time.
        retries (N): How often a question is sent to a server again.
        shard (I/N): Every N-th line only, from line I on; counts from 1.
        resume: Continue FILE where it stops, or begin it.
        blocks (K): Memory blocks; as in training if left out.
    """
    with common.clear_errors("The same command with --resume continues."):
        from rim.cli.checks import check_model, check_target
        from rim.config import ConfigError
        from rim.deploy.answer.engines import LocalEngine, RayEngine, ServerEngine
        from rim.deploy.answer.job import Shard, answer_file, check_job, count_lines
        from rim.models.folder import read_prompt_format

        if len(words) != (1 if server else 2):
            raise ConfigError(
                "give a run and a file, `rim answer RUN IN.jsonl --out OUT.jsonl`, or a server and "
                "a file, `rim answer --server URL IN.jsonl --out OUT.jsonl`"
            )
        if server:
            own = ("engine", "workers", "batch_size", "device")
            refuse_unused("a server decides that itself (--server)", *own)
        else:
            own = ("model", "api_key_env", "forbid", "concurrency", "retries")
            refuse_unused("only with --server", *own)
        if engine == "ray":
            refuse_unused("not with --engine ray: each worker takes its own", "device")
        else:
            refuse_unused("only with --engine ray", "workers")
        part = Shard.parse(shard)
        sampling = common.sampling(temperature, 0, top_p, 1, seed)
        questions = Path(words[-1])
        columns = reading(column, None).columns
        if columns.model_fields_set - {"question"}:
            raise ConfigError("--column takes question=NAME here: nothing else is read")
        check_target(out)
        check_job(questions, out, resume=resume, field=columns.question)
        total = count_lines(questions, part)
        if server:
            from rim.deploy.serve.client import Client

            key, never = key_of(api_key_env), token_ids(forbid)
            client = Client(server, model=model, api_key=key, retries=retries, forbidden_ids=never)
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
            tell_of_more([blocks], read_prompt_format(check_model(run, [blocks], device)))
            options = {"blocks": blocks, "max_new_tokens": max_new_tokens, "sampling": sampling}
            if engine == "ray":
                chosen = RayEngine(run, workers=workers, batch_size=batch_size, **options)
            else:
                reasoner = common.load(run, device)
                chosen = LocalEngine(reasoner, run, batch_size=batch_size, **options)
        person = common.console_for(json_)
        with common.progress("answering", total, person) as advance:
            done = answer_file(
                questions,
                out,
                chosen,
                shard=part,
                resume=resume,
                field=columns.question,
                progress=advance,
            )
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
