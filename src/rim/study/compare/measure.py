"""One run, from training to its JSON; and the latencies of all methods, taking turns."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rim.config import ConfigError
from rim.config.recipe_yaml import dump_yaml
from rim.data.examples import Example
from rim.data.sources import data_hash, load_examples
from rim.evaluate.accuracy import score
from rim.evaluate.controls import num_answers, run_controls
from rim.infer.answers import commonest_share
from rim.infer.reasoner import Reasoner, best_device, load
from rim.report.curves import ACCURACY, read_curves
from rim.report.progress import counted
from rim.results import environment, read_json, write_json, write_text
from rim.study.bench.timing import time_in_turns
from rim.study.compare.plan import PlannedRun
from rim.study.compare.recorded import asked, is_empty_beginning, read_result, refuse_changes
from rim.study.compare.settings import Comparison
from rim.train.curriculum import train


def perform(settings: Comparison, run: PlannedRun, console: Console) -> None:
    """Train a run, or continue it, measure it, write its JSON. Does nothing where that exists."""
    refuse_changes(settings, [run])
    if run.done:
        return
    if not run.folder.finished:
        if is_empty_beginning(run):
            shutil.rmtree(run.folder.path)
        if not run.folder.path.exists():
            for file, start in run.start_files:
                write_text(file, dump_yaml(start.recipe))
        train(run.recipe, resume=run.folder.path.exists(), console=console)
    if run.result is not None:
        write_json(run.result, _measure(settings, run, console))


def _measure(settings: Comparison, run: PlannedRun, console: Console) -> dict[str, Any]:
    reasoner = load(run.folder.path, device=best_device())
    curves, _ = read_curves(run.folder.metrics_file)
    results, tested = {}, []
    for name, source in settings.tasks[run.task].all_tests.items():
        examples = load_examples(source)
        tested = examples if name == "test" else tested
        with counted(console, f"{name} {run.method}", len(examples)) as advance:
            evaluation = score(
                reasoner, examples, progress=advance, **settings.evaluation.model_dump()
            )
        results[name] = {
            "data": {"examples": len(examples), "hash": data_hash(examples)},
            "summary": evaluation.summary,
            "right": evaluation.right,
        }
    return {
        "task": run.task,
        "method": run.method,
        "seed": run.seed,
        "start": run.needs.method if run.needs else None,
        **asked(settings, run),
        "training": read_json(run.folder.training_file),
        # Step, all stages in a row, and accuracy of every validation.
        "learning": curves.get(ACCURACY, []),
        # What always giving one answer would get right: accuracy is worth what it has above that.
        "commonest_answer": commonest_share([example.answer for example in tested]),
        "test_steps": [len(example.steps) for example in tested],
        "results": results,
        **_block_controls(settings, run, reasoner, tested, console),
        "environment": environment(),
        "trained": read_json(run.folder.environment_file),
    }


# --- what is measured again where its settings changed -------------------------------------------


def _asked_controls(settings: Comparison, run: PlannedRun) -> dict[str, Any] | None:
    """How a run's block states are to be intervened on; None if they are not."""
    has_blocks = run.recipe.prompt_format.trained_blocks > 0
    wanted = settings.wants_controls(run.method) and has_blocks
    return {"questions": settings.controls.questions} if wanted else None


def redo_controls(settings: Comparison, run: PlannedRun, console: Console) -> None:
    """Make a finished run's controls again where they are not those asked for. Where none are, what
    was measured stays; the summary leaves it out.

    Raises:
        ConfigError: the trained model, which that takes, is gone.
    """
    record, wanted = read_result(run), _asked_controls(settings, run)
    if wanted is None or record["controls_settings"] == wanted:
        return
    if not run.folder.finished:
        raise ConfigError(
            f"{run.result}: its controls were made with other settings, and its model "
            f"{run.folder.path} is gone; delete the result to train it again"
        )
    reasoner = load(run.folder.path, device=best_device())
    examples = _tested(settings, run)
    write_json(_result(run), record | _block_controls(settings, run, reasoner, examples, console))


def _tested(settings: Comparison, run: PlannedRun) -> list[Example]:
    """The test questions that a finished run was scored on; `check_questions` refuses others."""
    return load_examples(settings.tasks[run.task].test)


def _block_controls(
    settings: Comparison,
    run: PlannedRun,
    reasoner: Reasoner,
    examples: Sequence[Example],
    console: Console,
) -> dict[str, Any]:
    """The records of `rim.evaluate.controls.run_controls`, if wanted, and how they were made."""
    wanted = _asked_controls(settings, run)
    if wanted is None:
        return {"controls": [], "controls_settings": None, "controls_refused": {}}
    examples = examples[: wanted["questions"]]
    total = num_answers(reasoner.trained_blocks, len(examples))
    refused: dict[str, str] = {}  # what was measured must not be lost with them
    with counted(console, f"controls {run.method}", total) as advance:
        options = settings.evaluation.model_dump()
        outcomes = run_controls(reasoner, examples, progress=advance, refused=refused, **options)
    return {
        "controls": [outcome.as_record() for outcome in outcomes],
        "controls_settings": wanted,
        "controls_refused": refused,
    }


def measure_latency(settings: Comparison, runs: Sequence[PlannedRun], console: Console) -> None:
    """Time the finished runs of one task and seed in turns, and add that to their JSONs.

    Nothing is measured where these very runs were timed together already. A run whose model is gone
    keeps the times that it has.
    """
    records = {run.method: read_result(run) for run in runs}
    wanted = {"together": sorted(records), **settings.latency.model_dump()}
    if all(r.get("latency_settings") == wanted for r in records.values()):
        return
    if gone := [run.method for run in runs if not run.folder.finished]:
        names = ", ".join(gone)
        console.print(f"Not timed again, their models are gone: {names}", style="yellow")
        runs = [run for run in runs if run.folder.finished]
        wanted["together"] = sorted(run.method for run in runs)
    if all(records[run.method].get("latency_settings") == wanted for run in runs):
        return
    examples = _tested(settings, runs[0])
    count = min(settings.latency.questions, len(examples))
    with counted(console, f"latency, {runs[0].task}, seed {runs[0].seed}", count) as advance:
        times = time_in_turns(
            {run.method: load(run.folder.path, device=best_device()) for run in runs},
            examples,
            count,
            threads=settings.latency.threads,
            max_new_tokens=settings.evaluation.max_new_tokens,
            progress=advance,
        )
    for run in runs:
        timed = {"latency": times[run.method], "latency_settings": wanted}
        write_json(_result(run), records[run.method] | timed)


def _result(run: PlannedRun) -> Path:
    assert run.result is not None, "starts are not measured"
    return run.result


def refuse_other_measurements(settings: Comparison, runs: Sequence[PlannedRun]) -> None:
    """Refuse finished results whose controls or latencies were measured in another way.

    Raises:
        ConfigError: one of them; running the comparison would measure it again.
    """
    latency = settings.latency.model_dump()
    for run in runs:
        if run.result is None:
            continue
        record = read_result(run)
        timed = record.get("latency_settings", latency)  # not timed yet: nothing to mix
        asked_for = _asked_controls(settings, run)
        kinds = {
            "controls": asked_for not in (None, record["controls_settings"]),
            "latency": any(timed[key] != value for key, value in latency.items()),
        }
        if differing := [kind for kind, differs in kinds.items() if differs]:
            raise ConfigError(
                f"{run.result}: {differing[0]} measured with other settings; leave out "
                "--table-only to measure again (nothing is trained again)"
            )
