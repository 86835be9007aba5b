"""One run, from training to its JSON; and the latencies of all methods, taking turns."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console

from rim.callbacks import progress_bar
from rim.compare.plan import Run
from rim.compare.settings import Comparison, ControlSettings
from rim.config import ConfigError, DataSource
from rim.controls import num_answers, run_controls
from rim.curriculum import train
from rim.data.examples import Example
from rim.data.sources import data_hash, load_examples
from rim.evaluation import Evaluation
from rim.reasoner import Reasoner, best_device, load
from rim.recipes import load_recipe
from rim.results import environment, write_json

#: What `ttft_ms` means in a result; one measured under another meaning is measured again.
TTFT = "to the first token of the answer"

# What a run that was stopped before its first checkpoint can have left behind.
_BEGINNINGS = {"config.yaml", "environment.json", "environment.json.partial", "metrics.jsonl"}


def perform(settings: Comparison, run: Run, console: Console) -> None:
    """Train a run, or continue it, measure it, write its JSON. Does nothing where that exists."""
    check_unchanged(settings, run)
    if run.done:
        return
    if not run.folder.finished:
        _drop_empty_beginning(run)
        train(run.recipe, resume=run.folder.path.exists(), console=console)
    if run.result is not None:
        write_json(run.result, _measure(settings, run, console))


def check_unchanged(settings: Comparison, run: Run) -> None:
    """Refuse to mix what is there with what the recipe says now.

    Raises:
        ConfigError: the recipe, the tests or the evaluation changed since a run began.
    """
    if run.result is not None and run.result.exists():
        record = json.loads(run.result.read_text(encoding="utf-8"))
        for key, value in _asked(settings, run).items():
            if record[key] != value:
                raise ConfigError(
                    f"{run.result} was made with another {key}"
                    f"{_where(record[key], value)}; give the comparison another name, or delete "
                    f"this file and {run.folder.path} to run it again"
                )
    elif run.folder.finished and load_recipe(run.folder.config_file) != run.recipe:
        raise ConfigError(
            f"{run.folder.path} was trained with another recipe; give the comparison another name, "
            "or delete it to train it again"
        )


def _where(old: Any, new: Any, path: str = "") -> str:
    """` (stages.0.max_steps: 2, now 3)`: the first place where two settings differ."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(key, old.get(key), new.get(key)) for key in {**old, **new}]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    for key, a, b in pairs:
        if a != b:
            return _where(a, b, f"{path}.{key}".lstrip("."))
    return f" ({path}: {old}, now {new})"


def _asked(settings: Comparison, run: Run) -> dict[str, Any]:
    """What a result depends on, as it stands in its JSON."""
    return {
        "recipe": run.recipe.model_dump(mode="json"),
        "tests": {n: s.model_dump(mode="json") for n, s in tests(settings, run.task).items()},
        "evaluation": settings.evaluation.model_dump(mode="json"),
    }


def tests(settings: Comparison, task: str) -> dict[str, DataSource]:
    """The test set (named "test") and those beyond it."""
    return {"test": settings.tasks[task].test, **settings.tasks[task].extra_tests}


def _drop_empty_beginning(run: Run) -> None:
    """A run killed before its first stage kept nothing: begin it again."""
    folder = run.folder.path
    if folder.exists() and {path.name for path in folder.iterdir()} <= _BEGINNINGS:
        shutil.rmtree(folder)


def _measure(settings: Comparison, run: Run, console: Console) -> dict[str, Any]:
    reasoner = load(run.folder.path, device=best_device())
    record: dict[str, Any] = {
        "task": run.task,
        "method": run.method,
        "seed": run.seed,
        "start": run.needs.method if run.needs else None,
        **_asked(settings, run),
        "training": json.loads(run.folder.training_file.read_text(encoding="utf-8")),
        "results": {},
    }
    for name, source in tests(settings, run.task).items():
        examples = load_examples(source)
        evaluation = _evaluate(settings, reasoner, examples, f"{name} {run.method}", console)
        record["results"][name] = {
            "data": {"examples": len(examples), "hash": data_hash(examples)},
            "summary": evaluation.summary,
            "right": evaluation.right,
        }
    record["controls"] = _block_controls(settings, run, reasoner, console)
    trained = json.loads(run.folder.environment_file.read_text(encoding="utf-8"))
    return record | {"environment": environment(), "trained": trained}


def _evaluate(
    settings: Comparison,
    reasoner: Reasoner,
    examples: list[Example],
    title: str,
    console: Console,
) -> Evaluation:
    with progress_bar(console) as bar:
        task = bar.add_task(title, total=len(examples), note="")
        return reasoner.evaluate(
            examples,
            progress=lambda done: bar.advance(task, done),
            **settings.evaluation.model_dump(),
        )


def wants_controls(settings: Comparison, run: Run, has_blocks: bool) -> bool:
    """Whether a run's block states are to be intervened on."""
    controls: ControlSettings = settings.controls
    named = controls.run == "block_methods" or (
        controls.run == "reference" and run.method == settings.reference
    )
    return named and has_blocks


def _block_controls(
    settings: Comparison, run: Run, reasoner: Reasoner, console: Console
) -> list[dict[str, Any]]:
    """The records of `rim.controls.run_controls`, if wanted for this run."""
    if not wants_controls(settings, run, reasoner.trained_blocks > 0):
        return []
    examples = load_examples(settings.tasks[run.task].test)[: settings.controls.questions]
    with progress_bar(console) as bar:
        total = num_answers(reasoner.trained_blocks, len(examples))
        task = bar.add_task(f"controls {run.method}", total=total, note="")
        outcomes = run_controls(
            reasoner,
            examples,
            progress=lambda done: bar.advance(task, done),
            **settings.evaluation.model_dump(),
        )
    return [outcome.as_record() for outcome in outcomes]


# --- latency -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Latency:
    """Medians over questions of milliseconds; mean of tokens."""

    ttft_ms: float
    answer_ms: float
    tokens: float


def measure_latency(settings: Comparison, runs: Sequence[Run], console: Console) -> None:
    """Time the finished runs of one task and seed in turns, and add that to their JSONs.

    Turns: every question is asked to every model before the next, so that all see the same machine.
    Nothing is measured where these very runs were timed together already.
    """
    records = {run.method: json.loads(_result(run).read_text(encoding="utf-8")) for run in runs}
    together = sorted(records)
    wanted = {"together": together, "ttft": TTFT, **settings.latency.model_dump()}
    if all(r.get("latency_settings") == wanted for r in records.values()):
        return
    examples = load_examples(settings.tasks[runs[0].task].test)
    count = min(settings.latency.questions, len(examples))
    questions = [e.question for e in random.Random(0).sample(examples, count)]
    reasoners = {run.method: load(run.folder.path, device=best_device()) for run in runs}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in reasoners}
    limit = settings.evaluation.max_new_tokens
    with limited_threads(settings.latency.threads), progress_bar(console) as bar:
        title = f"latency, {runs[0].task}, seed {runs[0].seed}"
        task = bar.add_task(title, total=count, note="")
        for question in questions:
            for name, reasoner in reasoners.items():
                # One unmeasured call: the other models' weights have taken over the cache.
                times[name].append(reasoner.latency([question], max_new_tokens=limit, warmup=1))
            bar.advance(task)
    for run in runs:
        rows = times[run.method]
        latency = Latency(
            statistics.median(row["ttft_ms"] for row in rows),
            statistics.median(row["answer_ms"] for row in rows),
            statistics.fmean(row["tokens"] for row in rows),
        )
        timed = {"latency": asdict(latency), "latency_settings": wanted}
        write_json(_result(run), records[run.method] | timed)


def _result(run: Run) -> Any:
    assert run.result is not None, "starts are not timed"
    return run.result


@contextlib.contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """torch on so many threads: one is fastest for tiny models, and steadier on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
