"""Settings of a comparison: methods x tasks x seeds, how they are kept fair, what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, field_validator, model_validator

from rim.config import ConfigError, DataConfig, DataSource, Settings
from rim.config.base import Folder, NonNegativeInt, PositiveInt, Share
from rim.config.recipe_yaml import read_recipe, settings_from_dict
from rim.config.stages import expand_stages

T = TypeVar("T")
Name = Annotated[str, Field(pattern=r"^\.*[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]


class TaskSettings(Settings):
    """Training data, test questions, and tests beyond the training distribution (`extra_tests`).

    `recipe` is a part of a training recipe that every model of this task shares.
    """

    data: DataConfig
    test: DataSource
    extra_tests: dict[Name, DataSource] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)

    @property
    def all_tests(self) -> dict[str, DataSource]:
        """The test set (named "test") and those beyond it."""
        return {"test": self.test, **self.extra_tests}


class StartSettings(Settings):
    """A model to start from as written: a part of a training recipe, and the key below beside it.

    start: key `from`, the model of `starts` that training begins with; a method's may also be
        METHOD/STAGE, what another method is after a stage of its own.
    """

    start: str | None = Field(default=None, alias="from")
    recipe: dict[str, Any]

    model_config = Settings.model_config | {"populate_by_name": True}

    @model_validator(mode="before")
    @classmethod
    def _split(cls, data: Any) -> Any:
        if not isinstance(data, dict) or isinstance(data.get("recipe"), dict):
            return data
        own = {"from", "start", *cls.model_fields} - {"recipe"}
        rest = {key: value for key, value in data.items() if key not in own}
        return {key: value for key, value in data.items() if key in own} | {"recipe": rest}


def _without_nulls(parts: Any) -> Any:
    """Drop methods set to null: so a comparison that extends another leaves one out."""
    if not isinstance(parts, dict):
        return parts
    return {name: part for name, part in parts.items() if part is not None}


class MethodSettings(StartSettings):
    """A method as written.

    control_of: this is a training control of that method: the comparison says what it changes.
    """

    control_of: str | None = None


class BudgetSettings(Settings):
    """What must be equal between the methods of a task: optimizer steps (and examples a step), or
    trained tokens up to `tolerance`. `exempt` names methods that differ, with the reason.
    """

    kind: Literal["steps", "tokens"] = "steps"
    tolerance: Share = 0.05
    exempt: Annotated[
        dict[str, Annotated[str, Field(min_length=1)]], BeforeValidator(_without_nulls)
    ] = Field(default_factory=dict)


class EvaluationSettings(Settings):
    batch_size: PositiveInt = 64
    max_new_tokens: PositiveInt = 64


class LatencySettings(Settings):
    """Questions timed one at a time, the methods taking turns."""

    questions: PositiveInt = 50
    threads: PositiveInt = 1


class ControlSettings(Settings):
    """Interventions on block states, on the first `questions` test questions."""

    run: Literal["reference", "block_methods", "none"] = "reference"
    questions: PositiveInt = 500


class SelectionSettings(Settings):
    """The paper's selection protocol. It chooses with TEST questions: off unless written.

    candidates: a name for each group, and the methods of it that compete (such as learning rates);
    each seed of each is a candidate. A method in no group competes with its own seeds.
    """

    splits: PositiveInt = 16
    held_out: PositiveInt = 264
    seed: int = 0
    candidates: dict[Name, tuple[str, ...]] = Field(default_factory=dict)


class Comparison(Settings):
    """A whole comparison."""

    name: Name
    runs_dir: Folder = "runs"
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2)
    tasks: Annotated[dict[Name, TaskSettings], Field(min_length=1)]
    common: dict[str, Any] = Field(default_factory=dict)
    starts: dict[Name, StartSettings] = Field(default_factory=dict)
    methods: Annotated[dict[Name, MethodSettings], Field(min_length=1)]
    reference: str = "rim"
    budget: BudgetSettings = BudgetSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    latency: LatencySettings = LatencySettings()
    controls: ControlSettings = ControlSettings()
    selection: SelectionSettings | None = None

    def wants_controls(self, method: str) -> bool:
        """Whether interventions on a method's blocks are asked for, if it has any."""
        everyone = self.controls.run == "block_methods"
        return everyone or (self.controls.run == "reference" and method == self.reference)

    def line_of(self, start: str | None) -> list[str]:
        """The starts that training from this one needs, the first to be trained first."""
        line: list[str] = []
        if begins := stage_of(start):
            start = self.methods[begins[0]].start
        while start is not None:
            if start in line:
                raise ValueError(f"starts.{start}.from: {' from '.join([*line, start])}, a circle")
            line.append(start)
            start = self.starts[start].start
        return line[::-1]

    @property
    def folder(self) -> Path:
        return Path(self.runs_dir) / self.name

    _left_out = field_validator("methods", "tasks", "starts", mode="before")(_without_nulls)

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        _known("reference", [self.reference], self.methods)
        _known("budget.exempt", self.budget.exempt, self.methods)
        parts = {f"methods.{n}": m for n, m in self.methods.items()}
        parts |= {f"starts.{n}": s for n, s in self.starts.items()}
        for name, part in parts.items():
            if isinstance(part, MethodSettings) and (begins := stage_of(part.start)):
                self._check_stage(name, part, *begins)
            else:
                _known(f"{name}.from", [part.start] if part.start else [], self.starts)
        for name in self.starts:
            self.line_of(name)
        for name, method in self.methods.items():
            controlled = [method.control_of] if method.control_of else []
            _known(f"methods.{name}.control_of", controlled, self.methods)
        for group, names in (self.selection.candidates if self.selection else {}).items():
            _known(f"selection.candidates.{group}", names, self.methods)
        return self

    def _check_stage(self, name: str, part: MethodSettings, method: str, stage: str) -> None:
        _known(f"{name}.from", [method], self.methods)
        other = self.methods[method]
        if other is part or stage_of(other.start):
            raise ValueError(f"{name}.from: {method} itself begins with a stage of a method")
        stages = expand_stages(other.recipe.get("stages"))
        if isinstance(stages, list):  # else they stand in `common`, and are checked with the recipe
            named = [each["name"] for each in stages if isinstance(each, dict) and "name" in each]
            _known(f"{name}.from", [stage], named)

    @model_validator(mode="after")
    def _folders_differ(self) -> Self:
        both = set(self.starts) & set(self.methods)
        if both:
            raise ValueError(f"{sorted(both)[0]!r} names a start and a method; rename one")
        if "results" in self.tasks:
            raise ValueError("a task may not be called 'results': that folder holds the results")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds repeat: {list(self.seeds)}")
        return self


def stage_of(start: object) -> tuple[str, str] | None:
    """Method and stage of a `from` that is METHOD/STAGE; None of any other."""
    method, slash, stage = str(start or "").partition("/")
    return (method, stage) if slash else None


def others_last(methods: Mapping[str, T], start_of: Callable[[T], object]) -> list[tuple[str, T]]:
    """Methods in their order, but those that begin with a stage of another behind all others."""
    return sorted(methods.items(), key=lambda item: bool(stage_of(start_of(item[1]))))


def _known(where: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: no {name!r} here, there are {', '.join(known) or 'none'}")


def load_comparison(path: str | Path, overrides: tuple[str, ...] = ()) -> Comparison:
    """Read a comparison's YAML: `extends:`, overrides and hints as in training recipes.

    Raises:
        ConfigError: a missing file, YAML that does not parse, an unknown key, a value out of range.
    """
    raw = read_recipe(path, overrides)
    if "stages" in raw and "methods" not in raw:
        raise ConfigError(f"{path} trains one model: use `rim train {path}`")
    return settings_from_dict(Comparison, raw, str(path))
