"""A whole run: data, model, blocks, templates and stages."""

from __future__ import annotations

from itertools import zip_longest
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from rim.config.base import Folder, PositiveInt, Settings
from rim.config.data import DataConfig
from rim.config.model import ModelConfig
from rim.config.prompt_format import MemoryConfig, MethodName, PromptFormat, TemplatesConfig
from rim.config.stages import StageConfig, expand_stages
from rim.methods import METHODS


class ValidationConfig(Settings):
    """Validation during training: it selects the checkpoint, and never sees test questions."""

    num_examples: PositiveInt = 200
    batch_size: PositiveInt = 64
    max_new_tokens: PositiveInt = 64


class Recipe(Settings):
    """A whole run."""

    # Not dots alone: a run is written to runs_dir/name, and ".." is beside it.
    name: Annotated[str, Field(pattern=r"^\.*[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
    method: MethodName
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # as numpy takes it
    runs_dir: Folder = "runs"
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
        for stage in self.stages:
            if problem := self._misfit(stage):
                raise ValueError(f"stage {stage.name!r}: {problem}")
        return self

    def _misfit(self, stage: StageConfig) -> str | None:
        """What a stage asks for that the method or the prompt does not have."""
        method = METHODS[self.method]
        if stage.objective not in method.objectives:
            allowed = " and ".join(method.objectives)
            return (
                f"objective {stage.objective!r} does not belong to method {self.method!r}, which "
                f"has {allowed}"
            )
        if stage.objective == "remaining":
            if method.removes is None:
                return f"method {self.method!r} declares no 'removes', see its class"
            if getattr(stage, removal := f"removed_{method.removes}") is None:
                return f"method {self.method!r} wants {removal!r}"
        if stage.blind_readouts and (not method.has_blocks or stage.objective == "solution"):
            return (
                "blind_readouts is for methods with blocks; a read-out without them has nothing "
                "but the question"
            )
        if stage.blind_readouts and not self.memory.readouts_see_question:
            return (
                "memory.readouts_see_question: false hides the question from every read-out "
                "already; leave blind_readouts out"
            )
        if self.prompt_format.feedback != "none" and stage.gradient_checkpointing:
            return (
                "gradient_checkpointing has no cache, which methods that feed hidden states back "
                "need"
            )
        return None

    @model_validator(mode="after")
    def _stages_follow_each_other(self) -> Self:
        for stage, following in zip_longest(self.stages, self.stages[1:]):
            if stage.unused_steps == "drop":
                continue
            if following is None or following.batch_size != stage.batch_size:
                raise ValueError(
                    f"stage {stage.name!r}: unused_steps: next_stage needs a stage behind it with "
                    f"the same batch_size, {stage.batch_size}"
                )
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names, got {names}")
        return self

    @model_validator(mode="after")
    def _separate_readouts_are_causal(self) -> Self:
        separate = self.model.readouts == "separate" or not self.model.takes_our_mask
        if separate and (setting := self.parallel_only):
            way = "readouts: separate"
            if not self.model.takes_our_mask:
                way = f"attention: {self.model.attention}"
            raise ValueError(
                f"model.{way} cannot express {setting}; its rows are ordinary causal "
                "sequences that see their whole question"
            )
        return self

    @property
    def parallel_only(self) -> str | None:
        """The setting that separate read-outs cannot express, if there is one."""
        for stage in self.stages:
            if stage.blind_readouts:
                return f"blind_readouts (stage {stage.name!r})"
            if METHODS[self.method].extra_loss(stage) is not None:
                return f"the loss of method {self.method!r} on hidden states of an example's pass"
        return self.prompt_format.parallel_only

    @property
    def prompt_format(self) -> PromptFormat:
        return PromptFormat(method=self.method, memory=self.memory, templates=self.templates)
