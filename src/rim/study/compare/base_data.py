"""What the base of a comparison was trained on before: are the test questions among it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rim.config import ConfigError, DataSource, Recipe
from rim.config.recipe_yaml import load_recipe
from rim.data.examples import DataError, Example
from rim.data.sources import data_hash, is_hub, source_name
from rim.data.training import load_training_data
from rim.results import read_json
from rim.train.run_folder import RunFolder


def warn_of_known_questions(
    base: str, source: DataSource, test: DataSource | None, tested: Sequence[Example]
) -> list[str]:
    """A sentence for each run that the base comes from, and that was trained on test questions or
    may have been.

    Args:
        source, test: the comparison's data; test questions of their own, if there are.
        tested: all test questions.
    """
    asked = {example.same_question for example in tested}
    own = {_place(each) for each in (source, test) if each is not None}
    lines = []
    for run, recipe in _runs_behind(base):
        trained = recipe.data.train
        name = trained.format if trained.task else source_name(trained)
        same_place = not trained.task and _place(trained) in own
        known, as_it_was = _known(run, recipe, asked)
        if known:
            lines.append(
                f"Warning: {known} of the {len(asked)} test questions are not new to the base: "
                f"its run {run.path} was trained on them ({name}). Every method's accuracy is "
                "flattered; take another base, or give questions that it never saw (--test)"
            )
        elif same_place and not as_it_was:
            on_hub = trained.format == "hub"
            why = "a set of the hub is not looked through" if on_hub else "it has changed since"
            lines.append(
                f"Warning: the base's run {run.path} was trained on {name}, too ({why}): test "
                "questions may be among what it knows"
            )
    return lines


def _runs_behind(base: str) -> Iterator[tuple[RunFolder, Recipe]]:
    """The run that a base is of, the run that this one began with, and so on."""
    seen = set()
    while base:
        run = RunFolder(_run_folder(Path(base)))
        if not run.config_file.is_file() or run.path.resolve() in seen:
            return
        seen.add(run.path.resolve())
        try:
            recipe = load_recipe(run.config_file)
        except ConfigError:  # of another version, or no recipe: nothing is known of it
            return
        yield run, recipe
        base = recipe.model.base or ""


def _run_folder(model: Path) -> Path:
    """The run of RUN, RUN/model or RUN/stages/01-NAME/final."""
    if model.name == "model":
        return model.parent
    in_stage = model.name == "final" and len(model.parents) > 2 and model.parents[1].name
    return model.parents[2] if in_stage == "stages" else model


def _place(source: DataSource) -> str:
    name = source_name(source)
    return name if is_hub(name) else str(Path(name).resolve())


def _known(run: RunFolder, recipe: Recipe, asked: set[str]) -> tuple[int, bool]:
    """How many of the questions a run was trained on, by its data as they are now; and whether
    those are the data of then.
    """
    if recipe.data.train.format == "hub":  # may be large and far away
        return 0, False
    try:
        train, _ = load_training_data(recipe.data, recipe.seed)
        known = asked & {example.same_question for example in train}
        then = read_json(run.environment_file)["data"]["train"]
    except (DataError, OSError, ValueError, KeyError):
        return 0, False
    return len(known), then == data_hash(train)
