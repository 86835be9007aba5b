"""What a stage finds out about its model and this machine before it trains, and writes down: which
way its read-outs run, how many examples enter the model at a time. A resumed stage keeps to its
record.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rim.config import Recipe, StageConfig
from rim.core.layout import LaidOut
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.results import read_json, write_json
from rim.train.memory import find_micro_batch
from rim.train.parallel_or_separate import Way, decide_readouts
from rim.train.processes import by_first
from rim.train.run_folder import RunFolder


def settle_readouts(
    recipe: Recipe,
    run: RunFolder,
    stage: StageConfig,
    model: Any,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    layouts: Sequence[LaidOut],
    console: Console,
) -> Way:
    """Decide how a stage's read-outs run, by its own examples; once separate, a run stays so."""

    def decide() -> Way:
        records = _records(run.readouts_file)
        if stage.name not in records and "separate" not in (
            record["readouts"] for record in records.values()
        ):
            decision = decide_readouts(recipe, model, encoder, examples, layouts)
            console.print(decision.sentence, highlight=False, markup=False)
            records[stage.name] = decision.record()
            write_json(run.readouts_file, records)
        ways = [record["readouts"] for record in records.values()]
        return "separate" if "separate" in ways else "parallel"

    return by_first(decide)


def settle_micro_batch(
    run: RunFolder,
    stage: StageConfig,
    model: Any,
    encoder: PromptEncoder,
    layouts: Sequence[LaidOut],
    console: Console,
) -> StageConfig:
    """The stage with a number for `micro_batch_size`; an explicit one is only written down."""

    def decide() -> int:
        records = _records(run.micro_batches_file)
        if stage.micro_batch_size != "auto":
            found: dict[str, Any] = {
                "micro_batch_size": stage.micro_batch_size,
                "found": "in the recipe",
            }
        elif stage.name in records:
            return records[stage.name]["micro_batch_size"]
        else:
            trial = find_micro_batch(stage, model, encoder, layouts)
            console.print(trial.sentence, highlight=False)
            found = trial.record()
        write_json(run.micro_batches_file, records | {stage.name: found})
        return found["micro_batch_size"]

    return stage.model_copy(update={"micro_batch_size": by_first(decide)})


def reduce_micro_batch(run: RunFolder, stage: StageConfig, micro: int) -> bool:
    """Let a resumed stage take smaller micro-batches, unless the recipe states them."""
    if stage.micro_batch_size != "auto":
        return False
    records = _records(run.micro_batches_file)
    changed = {"micro_batch_size": micro, "found": "out of memory"}
    write_json(run.micro_batches_file, records | {stage.name: records[stage.name] | changed})
    return True


def _records(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}
