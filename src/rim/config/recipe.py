"""A whole run: data, model, blocks, templates and stages."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from rim.config.base import NonNegativeInt, PositiveInt, Settings
from rim.config.data import DataConfig
from rim.config.model import ModelConfig
from rim.config.prompt import MemoryConfig, Method, PromptFormat, TemplatesConfig
from rim.config.stages import StageConfig, expand_stages

#: What the stages of each method may train on.
OBJECTIVES: dict[Method, tuple[str, ...]] = {
    "direct": ("answer",),
    "cot": ("solution",),
    "pause": ("answer", "solution", "remaining"),
    "icot": ("solution", "remaining"),
    "rim": ("steps", "answer"),
    "coconut": ("solution", "remaining"),
    "codi": ("distillation",),
    "lotus": ("solution", "steps"),
}
#: By what the methods with a shrinking solution measure the removed part.
REMOVAL: dict[Method, str] = {
    "pause": "removed_steps",
    "coconut": "removed_steps",
    "icot": "removed_tokens",
}


class ValidationConfig(Settings):
    """Validation during training: it selects the checkpoint, and never sees test questions."""

    num_examples: PositiveInt = 200
    batch_size: PositiveInt = 64
    max_new_tokens: PositiveInt = 64


class Recipe(Settings):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    method: Method
    seed: NonNegativeInt = 0
    runs_dir: str = "runs"
    data: DataConfig
    model: ModelConfig
    memory: MemoryConfig = MemoryConfig()
    templates: TemplatesConfig = TemplatesConfig()
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)]
    validation: ValidationConfig = ValidationConfig()
    report_to: tuple[str, ...] = ()

    @field_validator("stages", mode="before")
    @classmethod
    def _expand(cls, stages: Any) -> Any:
        return expand_stages(stages)

    @model_validator(mode="after")
    def _stages_fit_method(self) -> Self:
        allowed, removal = OBJECTIVES[self.method], REMOVAL.get(self.method)
        for stage in self.stages:
            if stage.objective not in allowed:
                raise ValueError(
                    f"stage {stage.name!r}: objective {stage.objective!r} does not belong to "
                    f"method {self.method!r}, which has {' and '.join(allowed)}"
                )
            if stage.objective == "remaining" and getattr(stage, str(removal)) is None:
                raise ValueError(f"stage {stage.name!r}: method {self.method!r} wants {removal!r}")
            if self.prompt_format.feedback != "none" and stage.gradient_checkpointing:
                raise ValueError(
                    f"stage {stage.name!r}: gradient_checkpointing has no cache, which methods "
                    "that feed hidden states back need"
                )
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names, got {names}")
        return self

    @property
    def prompt_format(self) -> PromptFormat:
        return PromptFormat(method=self.method, memory=self.memory, templates=self.templates)
