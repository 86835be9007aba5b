"""Every run of a comparison, in one process or several, continued where it was stopped."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from rim.config import ConfigError
from rim.config.recipe_yaml import dump_yaml
from rim.data.examples import DataError
from rim.report.progress import progress_bar
from rim.results import write_text
from rim.study.compare.aggregate import aggregate, read_results
from rim.study.compare.measure import (
    measure_latency,
    perform,
    redo_controls,
    refuse_other_measurements,
)
from rim.study.compare.plan import PlannedRun, check_tokens, choose, make_plan
from rim.study.compare.questions import check_questions
from rim.study.compare.recorded import refuse_changes
from rim.study.compare.settings import Comparison
from rim.train.failures import STOPPED

#: A mistake in one run: the others go on.
_RUN_ERRORS = (ConfigError, DataError, *STOPPED)

#: What a worker has, once asked to end, for its step and its checkpoint.
SECONDS_TO_SAVE = 60


@dataclass(frozen=True)
class Failure:
    run: PlannedRun
    reason: str


def run_comparison(
    settings: Comparison, console: Console, *, only: Sequence[str] = (), jobs: int = 1
) -> tuple[dict[str, Any], list[Failure]]:
    """Do what is not done yet, then sum up.

    Args:
        only: train and measure these methods only; the summary still has all finished ones.
        jobs: runs at a time, each in a process of its own with its share of the cores.

    Raises:
        ConfigError, DataError: the recipe is wrong; found before anything trains, but for token
            budgets, which are known only after training.
    """
    plan = make_plan(settings)
    chosen = choose(settings, plan, only)
    # What was not chosen but is done is in the summary too.
    refuse_changes(settings, [run for run in plan if run.done or run in chosen])
    open_runs = [run for run in chosen if not run.done]
    check_questions(settings, open_runs, [run for run in plan if run.done])
    console.print(
        f"[bold]{settings.name}[/]: {len(chosen)} runs, {len(open_runs)} of them to do",
        highlight=False,
    )
    settings.folder.mkdir(parents=True, exist_ok=True)
    if jobs == 1 or len(open_runs) < 2:
        failures = _one_by_one(settings, plan, open_runs, console)
    else:
        failures = _side_by_side(settings, plan, open_runs, console, jobs)
    for run in plan:
        if run.result is not None and run.done:
            redo_controls(settings, run, console)
    for task in settings.tasks:
        for seed in settings.seeds:
            finished = [r for r in plan if (r.task, r.seed) == (task, seed) and r.result and r.done]
            if finished:
                measure_latency(settings, finished, console)
    return aggregate(settings, plan), failures


def sum_up(settings: Comparison) -> dict[str, Any]:
    """The comparison of what is finished; nothing is run.

    Raises:
        ConfigError: there is nothing, or it was not made with these settings.
    """
    plan = make_plan(settings)
    done = [run for run in plan if run.done]
    refuse_changes(settings, done)
    refuse_other_measurements(settings, done)
    result = aggregate(settings, plan)
    if not any(content["methods"] for content in result["tasks"].values()):
        raise ConfigError(f"{settings.folder} has no results yet; leave out --table-only to run")
    return result


def _one_by_one(
    settings: Comparison, plan: list[PlannedRun], runs: list[PlannedRun], console: Console
) -> list[Failure]:
    failures: list[Failure] = []
    for number, run in enumerate(runs, 1):
        console.rule(f"{number} of {len(runs)}: {run.name}", align="left")
        if run.needs and not run.needs.done:
            failures.append(Failure(run, f"its start {run.needs.name} failed"))
            continue
        try:
            perform(settings, run, console)
        except _RUN_ERRORS as error:
            failures.append(Failure(run, str(error)))
            console.print(f"[bold red]{run.name} failed[/], the others go on", highlight=False)
        check_tokens(settings, run.task, read_results(plan, run.task))
    return failures


# --- several processes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Worker:
    run: PlannedRun
    process: subprocess.Popen[bytes]
    began: float
    gpu: str | None = None


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


def _free_gpu(gpus: Sequence[str], workers: Sequence[_Worker]) -> str | None:
    """The GPU with the fewest workers; None where there are no GPUs."""
    busy = [worker.gpu for worker in workers]
    return min(gpus, key=busy.count, default=None)


def _side_by_side(
    settings: Comparison,
    plan: list[PlannedRun],
    runs: list[PlannedRun],
    console: Console,
    jobs: int,
) -> list[Failure]:
    # Comparisons of several references may share a folder, as reproductions of one base do.
    recipe = settings.folder / f"comparison-{settings.reference}.yaml"
    write_text(recipe, dump_yaml(settings, only_set=True))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    waiting, workers, failures = list(runs), list[_Worker](), list[Failure]()
    gpus = visible_gpus()
    # The processes end with this one, however it ends (see `rim.study.compare.worker`).
    with contextlib.ExitStack() as stack, progress_bar(console) as bar, _stopped(workers):
        task = bar.add_task("runs", total=len(runs), note="")
        while waiting or workers:
            for worker in [w for w in workers if w.process.poll() is not None]:
                workers.remove(worker)
                failures += _ended(worker, console)
                task_results = read_results(plan, worker.run.task)
                check_tokens(settings, worker.run.task, task_results)
            failures += _give_up(waiting, failures)
            ready = [run for run in waiting if run.needs is None or run.needs.done]
            for run in ready[: jobs - len(workers)]:
                waiting.remove(run)
                gpu = _free_gpu(gpus, workers)
                process = stack.enter_context(_start(recipe, run, threads, gpu))
                workers.append(_Worker(run, process, time.monotonic(), gpu))
            names = ", ".join(w.run.name for w in workers)
            bar.update(task, completed=len(runs) - len(waiting) - len(workers), note=names)
            time.sleep(0.2)
        bar.update(task, completed=len(runs), note="")
    return failures


def _start(
    recipe: Path, run: PlannedRun, threads: int, gpu: str | None = None
) -> subprocess.Popen[bytes]:
    run.log.parent.mkdir(parents=True, exist_ok=True)
    module = "rim.study.compare.worker"
    with run.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(recipe), run.name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
            | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
        )


@contextlib.contextmanager
def _stopped(workers: Sequence[_Worker]) -> Generator[None]:
    """In the end SIGTERM to all at once, for a scheduler does not wait long, and time to save:
    closing a worker's standard input would end it at once.
    """
    try:
        yield
    finally:
        for worker in workers:
            worker.process.terminate()
        last = time.monotonic() + SECONDS_TO_SAVE
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, last - time.monotonic()))


def _ended(worker: _Worker, console: Console) -> list[Failure]:
    seconds = time.monotonic() - worker.began
    if worker.run.done:
        console.print(f"{worker.run.name}: done in {seconds:.0f} s", highlight=False)
        return []
    last = [line for line in worker.run.log.read_text("utf-8", "replace").splitlines() if line]
    reason = f"{last[-1].strip() if last else 'no output'} (log: {worker.run.log})"
    console.print(f"[bold red]{worker.run.name} failed[/], the others go on", highlight=False)
    return [Failure(worker.run, reason)]


def _give_up(waiting: list[PlannedRun], failures: list[Failure]) -> list[Failure]:
    """Runs whose start failed cannot begin."""
    failed = {failure.run.name for failure in failures}
    lost = [run for run in waiting if run.needs and run.needs.name in failed]
    for run in lost:
        waiting.remove(run)
    return [Failure(run, f"its start {run.needs.name} failed") for run in lost if run.needs]
