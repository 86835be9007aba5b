"""`rim compare --data`: what of a comparison depends on the data and the base."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rim.config import ConfigError, DataConfig, DataSource, ModelConfig, TemplatesConfig
from rim.config.recipe_yaml import apply_override, read_recipe, settings_from_dict
from rim.config.stages import divide_steps
from rim.data.examples import DataError, Example
from rim.data.sources import MOST_VALIDATION, load_examples, source_name
from rim.data.training import load_training_data
from rim.report.verdict import FEW
from rim.study.compare.base_data import warn_of_known_questions
from rim.study.compare.settings import Comparison, stage_of
from rim.study.compare.trial import share_steps

#: More blocks than this are not chosen by themselves: a few long examples would cost all others.
MOST_BLOCKS = 16
#: Share of the examples whose steps and answer the blocks hold.
_COVERED = 0.95
_EPOCHS, _BATCH, _LEAST_STEPS, _MOST_STEPS = 5, 16, 100, 2000


@dataclass(frozen=True)
class MyData:
    """A comparison on somebody's data, and what was chosen for it, in sentences."""

    settings: Comparison
    told: list[str]


def compare_my_data(
    recipe: Path,
    source: DataSource,
    base: str,
    *,
    test: DataSource | None = None,
    steps: int | None = None,
    blocks: int | None = None,
    overrides: Sequence[str] = (),
) -> MyData:
    """The comparison of `recipe` on one data set, which is parted by question.

    Args:
        test: test questions of their own; they are taken out of `source`, and nothing else of it is
            held back for the test.
        steps: optimizer steps of every method; five epochs if left out, 100 to 2,000.
        blocks: those of RiM; as many as the steps of 95 % of the examples and the answer if left
            out, at most 16.
        overrides: as `--set`, applied last.

    Raises:
        DataError: no such data, too few questions, or none with steps.
        ConfigError: the recipe is wrong, or has not one task; the base's tokenizer is out of reach.
    """
    raw = read_recipe(recipe)
    if not isinstance(raw.get("tasks"), dict) or len(raw["tasks"]) != 1:
        raise ConfigError(f"{recipe}: --data needs a comparison of one task")
    (task,) = raw["tasks"].values()
    task |= _sources(source, test)
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(source.path or "").stem).strip("_")
    raw["name"] = f"compare-{name or 'data'}"
    common = raw.setdefault("common", {})
    common["model"] = common.get("model", {}) | {"base": base}
    train, validation = load_training_data(settings_from_dict(DataConfig, task["data"], "data"), 0)
    tested = load_examples(settings_from_dict(DataSource, task["test"], "test"))
    count = blocks or min(
        _quantile([len(example.steps) for example in train], _COVERED) + 1, MOST_BLOCKS
    )
    common["memory"] = common.get("memory", {}) | {"blocks": count}
    trial = "" if steps is None else f"-{steps}steps"
    if steps is None:
        steps = math.ceil(_EPOCHS * len(train) / _BATCH)
        steps = min(max(steps, _LEAST_STEPS), _MOST_STEPS)
    _share_steps(raw, steps)
    room = _longest_answer(base, (*train, *validation, *tested))
    for part in ("evaluation", "validation"):
        within = raw if part == "evaluation" else common
        within[part] = within.get(part, {}) | {"max_new_tokens": room}
    for override in overrides:
        apply_override(raw, override)
    lines = [*warn_of_known_questions(base, source, test, tested), *_leave_out(raw)]
    # What a trial leaves behind is not in the way of the whole.
    raw["name"] = f"{raw['name']}{trial}"
    settings = settings_from_dict(Comparison, raw, str(recipe))
    exempt = settings.budget.exempt
    count = settings.common["memory"].get("blocks", count)  # overrides may have changed it
    lines = [
        *lines,
        f"{len(train)} training, {len(validation)} validation and {len(tested)} test questions; "
        "no question is on two sides",
        f"{count} memory blocks; {steps} training steps for each of "
        f"{', '.join(n for n in settings.methods if n not in exempt)}"
        f"{''.join(f'; {name}: {why}' for name, why in exempt.items())}; "
        f"seeds {', '.join(map(str, settings.seeds))}; answers of up to {room} tokens",
    ]
    if longer := sum(len(example.steps) >= count for example in train):
        lines.append(f"{longer} training examples have more steps than {count} blocks hold")
    if len(tested) < FEW:
        lines.append(f"{len(tested)} test questions are few: expect wide intervals")
    return MyData(settings, lines)


def _leave_out(raw: dict[str, Any]) -> list[str]:
    """Methods that begin with an adapter cannot with a base of 4 bits: left out, and said so. A
    method that an override leaves out needs no exemption from the budget.
    """
    methods, budget = raw.get("methods", {}), raw.get("budget")
    if isinstance(budget, dict) and isinstance(budget.get("exempt"), dict):
        kept = {n: why for n, why in budget["exempt"].items() if methods.get(n, why)}
        budget["exempt"] = kept
    if not raw["common"]["model"].get("quantize"):
        return []
    lost = [n for n, m in methods.items() if isinstance(m, dict) and stage_of(m.get("from"))]
    methods |= dict.fromkeys(lost)
    return [
        f"{name} is left out: it begins with an adapter, and quantize rounds bases" for name in lost
    ]


def _sources(source: DataSource, test: DataSource | None) -> dict[str, Any]:
    """Data and test of a task, as a comparison's YAML has them.

    Raises:
        DataError: no example has steps.
    """
    if test is not None:
        test = _steps_if_any(test)
        source = source.model_copy(update={"exclude": (*source.exclude, source_name(test))})
    examples = load_examples(source)
    if not any(example.steps for example in examples):
        raise DataError(
            f"no example of {source.path} has steps, which chain of thought and RiM are trained "
            "on: `rim data split-steps` makes them from prose, `rim data distill` has them written"
        )
    written = source.model_dump(mode="json", exclude_defaults=True)
    data: dict[str, Any] = {"drop_without_steps": True}
    if test is None:
        data |= {part: written | {"part": part} for part in ("train", "validation")}
        return {"data": data, "test": written | {"part": "test"}}
    questions = len({example.same_question for example in examples if example.steps})
    data |= {"train": written, "holdout": max(1, min(questions // 10, MOST_VALIDATION))}
    return {"data": data, "test": test.model_dump(mode="json", exclude_defaults=True)}


def _steps_if_any(test: DataSource) -> DataSource:
    """Test questions, whose steps are worth a column in a table but are not needed."""
    try:
        load_examples(test)
    except DataError:
        test = test.model_copy(update={"columns": test.columns.model_copy(update={"steps": None})})
        load_examples(test)
    return test


def _quantile(counts: Sequence[int], share: float) -> int:
    return sorted(counts)[math.ceil(share * len(counts)) - 1]


def _share_steps(raw: dict[str, Any], steps: int) -> None:
    """Give every method so many optimizer steps, exempt ones their share more (`share_steps`)."""
    methods = {n: m for n, m in raw.get("methods", {}).items() if isinstance(m, dict)}
    written = {name: (m.get("from"), m.get("stages")) for name, m in methods.items()}
    exempt = (raw.get("budget") or {}).get("exempt") or {}
    for name, stages in share_steps(written, steps, divide_steps, exempt).items():
        methods[name]["stages"] = stages


def _longest_answer(base: str, examples: Sequence[Example]) -> int:
    """Tokens that the longest written solution takes in the base's tokenizer, and a fifth more."""
    from rim.models.loading import load_tokenizer

    tokenizer = load_tokenizer(ModelConfig(base=base))
    templates = TemplatesConfig()
    texts = (templates.solution_text(e.steps, e.answer) for e in examples)
    # By characters first: a tokenizer's time is for the longest alone.
    longest = sorted(texts, key=len)[-200:]
    most = max(len(tokenizer.encode(text, add_special_tokens=False)) for text in longest)
    return math.ceil(1.2 * most) + 8
