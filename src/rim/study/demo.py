"""`rim demo`: one tiny base model, fine-tuned three ways on a built-in task, compared on one page.

Like the paper, every method starts from the same base, which already knows single steps: it was
pretrained on worked solutions. Direct answers and memory blocks then get the same number of steps;
chain of thought gets fewer, because the base already writes worked solutions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from rim import __version__
from rim.config import ArithmeticConfig, ConfigError, DataSource, Recipe
from rim.config.recipe_yaml import recipe_from_dict
from rim.data.examples import Example
from rim.data.sources import data_hash, load_examples
from rim.evaluate.accuracy import score, write_evaluation
from rim.infer.reasoner import Reasoner, load
from rim.report.page.build import write_report
from rim.report.progress import counted
from rim.report.tables import demo_table
from rim.results import environment, read_json, write_json
from rim.study.bench.timing import time_in_turns
from rim.train.curriculum import train
from rim.train.run_folder import RunFolder, changed_since

NUM_BLOCKS = 5  # four steps and the answer
BASE_STEPS = 300
GROUNDING_STEPS = 900
REFINEMENT_STEPS = 300
CHAIN_OF_THOUGHT_STEPS = 100
TRAINING_EXAMPLES = 12_000
TEST_QUESTIONS = 1000
TIMED_QUESTIONS = 50
_RESULT = "demo.json"  # in the demo's folder, once it is finished

# Times are those of two ordinary cores.
WHAT_HAPPENS = {
    "base": "pretrain one base on worked solutions, about a minute and a half",
    "direct": "fine-tune it to answer directly, about a minute",
    "cot": "fine-tune it with chain of thought, about half a minute",
    "rim": "fine-tune it with memory blocks, about three minutes",
}


def run_demo(
    seed: int, runs_dir: Path, console: Console, out: Path | None = None
) -> dict[str, Any]:
    """Train, evaluate, print the table; returns (and optionally writes) the result.

    Trainings that are finished are kept, one that was stopped goes on from its last checkpoint. Of
    a finished demo nothing is run again: its result is shown.

    Raises:
        ConfigError: the folder was made with other recipes, by an earlier version.
    """
    start = time.perf_counter()
    folder = runs_dir / f"demo-seed{seed}"
    if (folder / _RESULT).exists():
        return _shown_again(folder, console, out)
    recipes = demo_recipes(seed, folder)
    _refuse_other_recipes(recipes, folder)
    console.print(
        "[bold]Reasoning in Memory, demo.[/] Chains such as 3+4-5+2= modulo 10, a small model: "
        "one base, fine-tuned three ways, compared on held-out questions. "
        "About six minutes on two free cores.",
        highlight=False,
    )
    seconds = {}
    begun_before = folder.exists()
    for number, (name, recipe) in enumerate(recipes.items(), 1):
        began = time.perf_counter()
        console.rule(f"{number} of 5: {WHAT_HAPPENS[name]}", align="left")
        if _train_or_continue(recipe, console):
            seconds[name] = round(time.perf_counter() - began, 1)
    console.rule("5 of 5: compare on held-out questions, about half a minute", align="left")
    test = load_examples(_arithmetic("test", TEST_QUESTIONS))
    reasoners = {name: load(folder / name) for name in ("direct", "cot", "rim")}
    methods = {n: _accuracies(r, folder / n, test, console) for n, r in reasoners.items()}
    for name, times in time_in_turns(reasoners, test, TIMED_QUESTIONS).items():
        methods[name] |= {key: round(value, 2) for key, value in times.items()}
    # Nobody knows how long a demo took of which a part was done before.
    total = None if begun_before else round(time.perf_counter() - start, 1)
    result = {"methods": methods, "seconds": total, "seed": seed}
    extra = {
        "environment": environment(),
        "data": {"test_hash": data_hash(test)},
        "train_seconds": seconds,
        "train_steps": {
            name: sum(s.max_steps or 0 for s in recipe.stages) for name, recipe in recipes.items()
        },
    }
    for file in (folder / _RESULT, *([out] if out is not None else [])):
        write_json(file, result | extra)
    _show(result, folder, console)
    return result


def _train_or_continue(recipe: Recipe, console: Console) -> bool:
    """Train what is not finished; whether that was done from beginning to end just now."""
    run = RunFolder(Path(recipe.runs_dir) / recipe.name)
    if run.finished:
        console.print(f"Done before: {run.model_dir}", highlight=False, markup=False)
        return False
    resume = run.config_file.exists()
    train(recipe, resume=resume, console=console)
    return not resume


def _refuse_other_recipes(recipes: Mapping[str, Recipe], folder: Path) -> None:
    """Nothing is mixed: a demo that an earlier version began trained something else."""
    for recipe in recipes.values():
        run = RunFolder(folder / recipe.name)
        if run.config_file.exists() and (changed := changed_since(run, recipe)):
            raise ConfigError(
                f"{run.path} was begun with other settings ({changed}); delete {folder}, or give "
                "another --runs-dir"
            )


def _shown_again(folder: Path, console: Console, out: Path | None) -> dict[str, Any]:
    """The result of a demo that was finished before."""
    content = read_json(folder / _RESULT)
    if out is not None:
        write_json(out, content)
    console.print(
        f"{folder} is finished; this is its result. To train again, delete the folder, or give "
        "another --seed or --runs-dir.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    _show(content, folder, console)
    return {key: content[key] for key in ("methods", "seconds", "seed")}


def _show(result: dict[str, Any], folder: Path, console: Console) -> None:
    report = folder / "report.html"
    write_report([folder], report, __version__, f"RiM demo, seed {result['seed']}")
    console.print(demo_table(result["methods"]))
    console.print(
        f'Ask it yourself: rim ask {folder / "rim"} "7+8-3=" --all-blocks',
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"All of it on one page: {report}", highlight=False, soft_wrap=True)


def _accuracies(
    reasoner: Reasoner, run: Path, test: list[Example], console: Console
) -> dict[str, Any]:
    with counted(console, f"test {run.name}", len(test)) as advance:
        result = score(reasoner, test, batch_size=250, progress=advance)
    summary = result.summary
    file = run / "evaluations" / f"test-k{summary['blocks']}.json"
    write_evaluation(result, file, run, "demo test", test, {"blocks": summary["blocks"]})
    final = summary["final"]
    row = {"accuracy": final["accuracy"], "interval": [final["low"], final["high"]]}
    if "any_block" in summary:
        row["any_block"] = summary["any_block"]["accuracy"]
        row["per_block"] = [block["accuracy"] for block in summary["per_block"]]
    return row


def demo_recipes(seed: int, folder: Path) -> dict[str, Recipe]:
    """The four runs of the demo as ordinary recipes (kept as config.yaml in each run folder)."""
    base = {
        "model": {
            "scratch": {
                "layers": 8,
                "width": 96,
                "heads": 4,
                "feed_forward": 256,
                "vocab_size": 16,  # no merges: one token a character
                "alphabet": "data",
                "initializer_range": 0.1,  # 1 / sqrt(width); the families' 0.02 learns slower
            },
            "tuning": "full",
        },
        "data": _data(min_operations=1),
        "stages": [_stage("pretraining", "solution", BASE_STEPS)],
    }
    from_base = {
        "model": {"base": str(RunFolder(folder / "base").model_dir), "tuning": "full"},
        "data": _data(min_operations=2),
    }
    # Half the base's batch, twice the steps: blocks are learned in sudden steps of their own, which
    # come sooner (LOG.md).
    equal_steps = GROUNDING_STEPS + REFINEMENT_STEPS
    small = {"batch_size": 64}
    variants: dict[str, dict[str, Any]] = {
        "base": base | {"method": "cot"},
        "direct": from_base
        | {"method": "direct", "stages": [_stage("answers", "answer", equal_steps) | small]},
        "cot": from_base
        | {"method": "cot", "stages": [_stage("solutions", "solution", CHAIN_OF_THOUGHT_STEPS)]},
        "rim": from_base
        | {
            "method": "rim",
            "stages": [
                # Our choices, not the paper's alignment and annealing: see docs/method.md, "the
                # demo".
                _stage("grounding", "steps", GROUNDING_STEPS)
                | {"alignment": "own_step", "surplus_blocks": "answer", "weighting": "ones"}
                # Later steps are learned late: the rate must still be high then.
                | {"scheduler": "constant_with_warmup"}
                | {"patience": 3, "unused_steps": "next_stage"}
                | small,
                _stage("refinement", "answer", REFINEMENT_STEPS)
                | {"weighting": "later_more", "learning_rate": 1e-3}
                | small,
            ],
        },
    }
    common = {
        "seed": seed,
        "runs_dir": str(folder),
        "memory": {"blocks": NUM_BLOCKS},
        "templates": {"question": "{question}", "answer": "{answer}", "step_separator": ";"},
        "validation": {"num_examples": 200, "batch_size": 200, "max_new_tokens": 32},
    }
    return {
        name: recipe_from_dict(common | {"name": name} | variant)
        for name, variant in variants.items()
    }


def _stage(name: str, objective: str, steps: int) -> dict[str, Any]:
    return {
        "name": name,
        "objective": objective,
        "max_steps": steps,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "scheduler": "cosine_with_min_lr",
        "warmup": round(50 / steps, 4) if steps > 50 else 0.1,
        "weight_decay": 0.01,
        "betas": [0.9, 0.98],
        "evaluate_every": max(50, steps // 5),
    }


def _arithmetic(split: str, count: int, min_operations: int = 2) -> DataSource:
    config = ArithmeticConfig(num_examples=count, min_operations=min_operations, split=split)  # type: ignore[arg-type]
    return DataSource(format="arithmetic", arithmetic=config)


def _data(min_operations: int) -> dict[str, Any]:
    return {
        "train": _arithmetic("train", TRAINING_EXAMPLES, min_operations).model_dump(),
        "validation": _arithmetic("validation", 200).model_dump(),
    }
