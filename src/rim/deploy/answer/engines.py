"""What answers the questions of `rim answer`: this process, a server, or Ray's workers."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rim.config import ConfigError
from rim.deploy.answer.job import Chunk, Row
from rim.infer.sampling import Sampling

if TYPE_CHECKING:
    from rim.deploy.serve.client import Client, ServerRefusal
    from rim.infer.reasoner import Reasoner

#: Batches a chunk: within it, prompts of like length share a batch.
_BATCHES = 8
#: So many questions in a row that a server fails at are the server's fault.
_MOST_FAILURES = 8


class LocalEngine:
    """A model in this process, in batches.

    Args:
        run: run folder or model folder, for the record beside the output.
    """

    answered = False

    def __init__(
        self,
        reasoner: Reasoner,
        run: Path,
        *,
        blocks: int | None = None,
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
        batch_size: int = 64,
    ):
        self.reasoner = reasoner
        self.run = run
        self.batch_size = batch_size
        self.chunk_size = _BATCHES * batch_size
        sampling = sampling or Sampling()
        self.options = {"blocks": blocks, "max_new_tokens": max_new_tokens, "sampling": sampling}

    def describe(self) -> dict[str, Any]:
        return _describe(self.run, self.options, self.batch_size)

    def answer(self, chunks: Iterable[Chunk]) -> Iterator[list[Row]]:
        for chunk in chunks:
            yield answer_chunk(self.reasoner, chunk, self.options | {"batch_size": self.batch_size})


def answer_chunk(reasoner: Reasoner, questions: Chunk, options: dict[str, Any]) -> list[Row]:
    """Rows of a chunk. Where a question has no room in the model, they are asked one by one."""
    if not questions:
        return []
    try:
        return [_row(answers[0]) for answers in reasoner.ask_many(questions, **options)]
    except ConfigError as error:
        if len(questions) == 1:
            return [{"error": str(error)}]
        return [row for q in questions for row in answer_chunk(reasoner, [q], options)]


def _row(answer: Any) -> Row:
    """Named as `rim ask --json` does."""
    fields = dict(vars(answer))
    return {"answer": fields.pop("answer"), "blocks": fields.pop("after_block"), **fields}


def weights_hash(folder: Path) -> str:
    """The first digits of a hash of the weights in a model folder."""
    from rim.models.folder import weight_files

    digest = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
    return digest.hexdigest()[:16]


def _describe(run: Path, options: dict[str, Any], batch_size: int) -> dict[str, Any]:
    from rim.models.folder import find_model_dir

    named = options | {"sampling": vars(options["sampling"]), "batch_size": batch_size}
    return {"model": weights_hash(find_model_dir(run)), **named}


class ServerEngine:
    """A server of chat completions, asked by several threads.

    A question that it refuses becomes a row with the error. One that it fails at (after the
    client's own retries) does too, if others are answered; several of them in a row, a server that
    answers none, one that refuses all, or the first ones, and a short one as well, one that is
    gone, and one that wants another key or model, end the job with nothing of that in the output.
    """

    chunk_size = 1
    answered = False

    def __init__(self, client: Client, *, concurrency: int = 8, **options: Any):
        self.client = client
        self.concurrency = concurrency
        self.options = options

    def describe(self) -> dict[str, Any]:
        told = {"server": self.client.url, "server_model": self.client.model, **self.options}
        if self.client.forbidden_ids:
            told["forbidden_ids"] = list(self.client.forbidden_ids)
        return told

    def answer(self, chunks: Iterable[Chunk]) -> Iterator[list[Row]]:
        waiting: list[list[Row]] = []  # from the first failure on, until a question is answered
        failures, refusals, answered = 0, 0, self.answered
        with ThreadPoolExecutor(self.concurrency) as pool:
            for rows in _in_order(pool, self._ask, chunks, 4 * self.concurrency):
                waiting.append(rows)
                if not rows:  # a line without a question says nothing of the server
                    if len(waiting) == 1:
                        yield waiting.pop()
                    continue
                if failed := rows[0].pop("failed", None):
                    failures += 1
                    if failures == _MOST_FAILURES:
                        raise self._always_fails(rows)
                    continue
                failures = 0
                if failed is not None and not answered:
                    refusals += 1
                    if refusals < _MOST_FAILURES:
                        continue
                    self._check_short_question()
                yield from waiting
                waiting.clear()
                answered = True
        if failures and not (answered or refusals):
            raise self._always_fails(next(rows for rows in waiting if rows))
        if refusals and not answered:
            self._check_short_question()
        yield from waiting

    def _always_fails(self, rows: list[Row]) -> ConfigError:
        return ConfigError(f"the server fails at every question: {rows[0]['error']}")

    def _check_short_question(self) -> None:
        """Whether it is the questions that are refused (all too long, say), or everything.

        Raises:
            ConfigError: it refuses a short question, too.
        """
        (row,) = self._ask(["1"])
        if row.get("failed"):
            raise self._always_fails([row])
        if "error" in row:
            raise ConfigError(f"the server refuses every question: {row['error']}")

    def _ask(self, chunk: Chunk) -> list[Row]:
        from rim.deploy.serve.client import ServerRefusal

        if not chunk:
            return []
        try:
            told = vars(self.client.ask(chunk[0], **self.options))
        except ServerRefusal as error:
            return [{"error": str(error), "failed": is_servers_fault(error)}]
        return [{name: told[name] for name in ("answer", "blocks", "text", "finished")}]


def is_servers_fault(error: ServerRefusal) -> bool:
    """Whether a later question may be answered, and this one too; False if the server refuses this
    question.

    Raises:
        ServerRefusal: it refuses everybody who asks so.
    """
    # No key, no credit, no such model or method, another address: so it goes with every question.
    if error.status in (401, 402, 403, 404, 405) or 300 <= error.status < 400:
        raise error
    return error.status >= 500 or error.status in (408, 429)


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[Chunk], list[Row]],
    chunks: Iterable[Chunk],
    ahead: int,
) -> Iterator[list[Row]]:
    """Results in the order of the chunks, which are taken only so far ahead."""
    todo: deque[Future[list[Row]]] = deque()
    chunks = iter(chunks)
    try:
        for chunk in itertools.islice(chunks, ahead):
            todo.append(pool.submit(work, chunk))
        while todo:
            yield todo.popleft().result()
            todo.extend(pool.submit(work, chunk) for chunk in itertools.islice(chunks, 1))
    finally:
        for future in todo:
            future.cancel()


class RayEngine:
    """Models in the workers of a Ray cluster, through Ray Data; of this machine, if none runs.

    Args:
        workers: models at a time, each with a GPU of its own where the cluster has GPUs.
    """

    answered = False

    def __init__(self, run: Path, *, workers: int = 1, batch_size: int = 64, **options: Any):
        self.run = run.resolve()
        self.workers = workers
        self.batch_size = batch_size
        self.chunk_size = _BATCHES * batch_size
        self.options = {"blocks": None, "max_new_tokens": 64, "sampling": Sampling()} | options

    def describe(self) -> dict[str, Any]:
        return _describe(self.run, self.options, self.batch_size)

    def answer(self, chunks: Iterable[Chunk]) -> Iterator[list[Row]]:
        try:
            import ray
            import ray.data
        except ImportError:
            raise ConfigError(
                "--engine ray needs Ray Data: `pip install 'reasoning-in-memory[ray]'`"
            ) from None
        if not ray.is_initialized():
            ray.init(logging_level="ERROR")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        options = self.options | {"batch_size": self.batch_size}
        chunks = iter(chunks)
        # A data set is in the cluster's memory: a file of any size goes through it piece by piece.
        while piece := list(itertools.islice(chunks, 64 * self.workers)):
            items = [{"questions": json.dumps(chunk)} for chunk in piece]
            table = ray.data.from_items(items, override_num_blocks=len(items))
            answered = table.map(
                _RayWorker,
                fn_constructor_args=(str(self.run), options),
                compute=ray.data.ActorPoolStrategy(size=self.workers),
                num_gpus=gpus,
            )
            yield from (json.loads(row["rows"]) for row in answered.iter_rows())


class _RayWorker:
    """A model in a worker. Rows travel as JSON: Arrow would give all of them the same columns."""

    def __init__(self, run: str, options: dict[str, Any]):
        from rim.infer.reasoner import best_device, load

        self.reasoner = load(run, device=best_device())
        self.options = options

    def __call__(self, item: dict[str, Any]) -> dict[str, str]:
        questions = json.loads(item["questions"])
        return {"rows": json.dumps(answer_chunk(self.reasoner, questions, self.options))}
