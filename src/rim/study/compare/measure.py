"""One run, from training to its JSON; and the latencies of all methods, taking turns."""

from __future__ import annotations

import json
import random
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rim.config import ConfigError
from rim.config.recipe_yaml import dump_yaml
from rim.data.examples import Example
from rim.data.sources import data_hash, load_examples
from rim.evaluate.accuracy import Evaluation, score
from rim.evaluate.controls import num_answers, run_controls
from rim.infer.reasoner import Reasoner, best_device, load
from rim.results import environment, write_json
from rim.study.bench.timing import limited_threads, time_answers
from rim.study.compare.plan import Run
from rim.study.compare.recorded import asked, is_empty_beginning, read_record, refuse_changes
from rim.study.compare.settings import Comparison
from rim.train.callbacks import progress_bar
from rim.train.curriculum import train

#: What `ttft_ms` means in a result; one measured under another meaning is measured again.
TTFT = "to the first token of the answer"


def perform(settings: Comparison, run: Run, console: Console) -> None:
    """Train a run, or continue it, measure it, write its JSON. Does nothing where that exists."""
    refuse_changes(settings, [run])
    if run.done:
        return
    if not run.folder.finished:
        if is_empty_beginning(run):
            shutil.rmtree(run.folder.path)
        if run.needs and not run.folder.path.exists():
            run.start_file.parent.mkdir(parents=True, exist_ok=True)
            run.start_file.write_text(dump_yaml(run.needs.recipe), encoding="utf-8")
        train(run.recipe, resume=run.folder.path.exists(), console=console)
    if run.result is not None:
        write_json(run.result, _measure(settings, run, console))


def _measure(settings: Comparison, run: Run, console: Console) -> dict[str, Any]:
    reasoner = load(run.folder.path, device=best_device())
    record: dict[str, Any] = {
        "task": run.task,
        "method": run.method,
        "seed": run.seed,
        "start": run.needs.method if run.needs else None,
        **asked(settings, run),
        "training": json.loads(run.folder.training_file.read_text(encoding="utf-8")),
        "results": {},
    }
    for name, source in settings.tasks[run.task].all_tests.items():
        examples = load_examples(source)
        evaluation = _evaluate(settings, reasoner, examples, f"{name} {run.method}", console)
        record["results"][name] = {
            "data": {"examples": len(examples), "hash": data_hash(examples)},
            "summary": evaluation.summary,
            "right": evaluation.right,
        }
    record |= _block_controls(settings, run, reasoner, console)
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
        return score(
            reasoner,
            examples,
            progress=lambda done: bar.advance(task, done),
            **settings.evaluation.model_dump(),
        )


# --- controls ------------------------------------------------------------------------------------


def asked_controls(settings: Comparison, run: Run) -> dict[str, Any] | None:
    """How a run's block states are to be intervened on; None if they are not."""
    wanted = settings.controls.run == "block_methods" or (
        settings.controls.run == "reference" and run.method == settings.reference
    )
    has_blocks = run.recipe.prompt_format.trained_blocks > 0
    return {"questions": settings.controls.questions} if wanted and has_blocks else None


def redo_controls(settings: Comparison, run: Run, console: Console) -> None:
    """Make a finished run's controls again where they are not those asked for.

    Raises:
        ConfigError: the trained model, which that takes, is gone.
    """
    record = read_record(run)
    wanted = asked_controls(settings, run)
    if record["controls_settings"] == wanted:
        return
    if wanted is None:
        controls: dict[str, Any] = {"controls": [], "controls_settings": None}
    elif not run.folder.finished:
        raise ConfigError(
            f"{run.result}: its controls were made with other settings, and its model "
            f"{run.folder.path} is gone; delete the result to train it again"
        )
    else:
        reasoner = load(run.folder.path, device=best_device())
        controls = _block_controls(settings, run, reasoner, console)
    write_json(_result(run), record | controls)


def _block_controls(
    settings: Comparison, run: Run, reasoner: Reasoner, console: Console
) -> dict[str, Any]:
    """The records of `rim.evaluate.controls.run_controls`, if wanted, and how they were made."""
    wanted = asked_controls(settings, run)
    if wanted is None:
        return {"controls": [], "controls_settings": None}
    examples = load_examples(settings.tasks[run.task].test)[: wanted["questions"]]
    with progress_bar(console) as bar:
        total = num_answers(reasoner.trained_blocks, len(examples))
        task = bar.add_task(f"controls {run.method}", total=total, note="")
        outcomes = run_controls(
            reasoner,
            examples,
            progress=lambda done: bar.advance(task, done),
            **settings.evaluation.model_dump(),
        )
    records = [outcome.as_record() for outcome in outcomes]
    return {"controls": records, "controls_settings": wanted}


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
    records = {run.method: read_record(run) for run in runs}
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
                times[name].append(
                    time_answers(reasoner, [question], max_new_tokens=limit, warmup=1)
                )
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


def _result(run: Run) -> Path:
    assert run.result is not None, "starts are not measured"
    return run.result


# --- summing up ----------------------------------------------------------------------------------


def refuse_other_measurements(settings: Comparison, runs: Sequence[Run]) -> None:
    """Refuse finished results whose controls or latencies were measured in another way.

    Raises:
        ConfigError: one of them; running the comparison would measure it again.
    """
    latency = settings.latency.model_dump()
    for run in runs:
        if run.result is None:
            continue
        record = read_record(run)
        timed = record.get("latency_settings", latency)  # not timed yet: nothing to mix
        differing = {
            "controls": record["controls_settings"] != asked_controls(settings, run),
            "latency": any(timed[key] != value for key, value in latency.items()),
        }
        for kind, differs in differing.items():
            if differs:
                raise ConfigError(
                    f"{run.result}: {kind} measured with other settings; leave out --table-only to "
                    "measure again (nothing is trained again)"
                )
