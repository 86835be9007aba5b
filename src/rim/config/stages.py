"""Settings of one training stage."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rim.config.base import (
    ConfigError,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Settings,
    Share,
)

#: What `rim.core.losses` and `rim.core.readout_weights` do; named here: settings need no torch.
Reduction = Literal["sum", "mean"]
Weighting = Literal[
    "ones",  # no annealing: every read-out weighs 1
    "anneal_uniform",  # all steps fade together over the whole stage
    "anneal_linear",  # step t fades at its own time, t measured against the longest example
    "anneal_relative",  # the same, t measured against the example's own T (the paper's best)
    "later_more",  # alpha_k = 2k / (K (K + 1)), the paper's stage 2
    "mean",  # 1 / K each
    "last",  # the last read-out only
]
Removed = NonNegativeInt | Literal["all"]
_BATCH = "batch_size and micro_batch_size of the stage"
#: Fields of transformers' TrainingArguments that a stage's `trainer` may not set, with what does;
#: "": nothing, for the training of read-outs depends on it.
TRAINER_OWN = {
    name: instead
    for instead, names in {
        "runs_dir and name": "output_dir",
        "max_steps of the stage": "max_steps",
        "epochs of the stage": "num_train_epochs",
        _BATCH: "per_device_train_batch_size gradient_accumulation_steps auto_find_batch_size",
        "validation.batch_size": "per_device_eval_batch_size",
        "learning_rate of the stage": "learning_rate",
        "scheduler of the stage": "lr_scheduler_type lr_scheduler_kwargs",
        "warmup of the stage": "warmup_steps warmup_ratio",
        "weight_decay of the stage": "weight_decay",
        "betas of the stage": "adam_beta1 adam_beta2",
        "max_grad_norm of the stage": "max_grad_norm",
        "bf16 of the stage": "bf16",
        "gradient_checkpointing of the stage": "gradient_checkpointing activation_checkpointing",
        "seed of the recipe": "seed data_seed",
        "evaluate_every of the stage": "eval_strategy eval_steps eval_delay "
        "save_strategy save_steps",
        "report_to of the recipe": "report_to",
        "name of the recipe and of the stage": "run_name",
        "rim train --resume": "resume_from_checkpoint",
        "rim push, once the model is trained": "push_to_hub hub_token",
        "": "load_best_model_at_end metric_for_best_model greater_is_better save_only_model "
        "remove_unused_columns label_names label_smoothing_factor prediction_loss_only "
        "logging_nan_inf_filter logging_strategy disable_tqdm train_sampling_strategy "
        "dataloader_drop_last",
    }.items()
    for name in names.split()
}


def divide_steps(stages: Any, steps: int, name: str) -> list[dict[str, Any]]:
    """Stages as a recipe has them, with so many optimizer steps in all, shared as they were.

    Args:
        name: of what has the stages, for messages.

    Raises:
        ConfigError: there are more stages than steps, none that are a recipe's own (a mapping
            changes stages that are written elsewhere), or some in epochs and some in steps.
    """
    try:
        stages = expand_stages(stages)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    if not isinstance(stages, list) or not stages or not all(isinstance(s, dict) for s in stages):
        raise ConfigError(f"{name} has no stages of its own that could share {steps} steps")
    if not 0 < len(stages) <= steps:
        raise ConfigError(
            f"{name} has {len(stages)} stages, which need at least a step each, not {steps} in all"
        )
    units = {unit for stage in stages for unit in ("max_steps", "epochs") if stage.get(unit)}
    if len(units) > 1:
        raise ConfigError(
            f"{name} counts some stages in epochs and some in steps (max_steps), so {steps} steps "
            "cannot be shared as they are; give all of them in one of both"
        )
    written = [stage.get("max_steps") or stage.get("epochs") for stage in stages]
    lengths = [float(x) if isinstance(x, int | float) and 0 < x < 1e9 else 1.0 for x in written]
    return [
        {key: value for key, value in stage.items() if key != "epochs"} | {"max_steps": count}
        for stage, count in zip(stages, _shared(steps, lengths), strict=True)
    ]


def written_length(stages: Any, unit: str) -> float:
    """What the stages of a recipe count to in `max_steps` or in `epochs`; 0 where any does not."""
    stages = expand_stages(stages) if isinstance(stages, list) else []
    counts = [stage.get(unit) if isinstance(stage, dict) else None for stage in stages]
    known = [count for count in counts if isinstance(count, int | float)]
    return sum(known) if len(known) == len(counts) else 0


def trial_stages(stages: Any, steps: int, name: str) -> list[dict[str, Any]]:
    """`divide_steps` with one validation a stage."""
    divided = divide_steps(stages, steps, name)
    return [stage | {"evaluate_every": stage["max_steps"]} for stage in divided]


def _shared(steps: int, lengths: list[float]) -> list[int]:
    """Whole numbers of at least 1 that add up to `steps`, as the lengths are to each other."""
    counts: list[int] = []
    for number, length in enumerate(lengths):
        left, behind = steps - sum(counts), len(lengths) - number - 1
        share = round(left * length / sum(lengths[number:]))
        counts.append(min(max(1, share), left - behind))
    return counts


def expand_stages(stages: Any) -> Any:
    """Write out `for_each: {setting: [values]}`: a stage becomes one a value, named NAME-VALUE.

    For curricula of many like stages (Coconut, iCoT); a resolved recipe has them one by one.
    """
    if not isinstance(stages, list | tuple):
        return stages
    expanded: list[Any] = []
    for stage in stages:
        sweep = stage.get("for_each") if isinstance(stage, dict) else None
        if sweep is None:
            expanded.append(stage)
            continue
        items = list(sweep.items()) if isinstance(sweep, dict) else []
        if len(items) != 1 or not isinstance(items[0][1], list):
            raise ValueError(
                "for_each takes one setting and a list, e.g. {removed_steps: [1, 2, all]}"
            )
        setting, values = items[0]
        if "name" not in stage:
            raise ValueError("a stage with for_each needs a name, which its values are added to")
        rest = {key: value for key, value in stage.items() if key != "for_each"}
        expanded += [rest | {"name": f"{rest['name']}-{v}", setting: v} for v in values]
    return expanded


class StageConfig(Settings):
    """One stage of a curriculum, with its own optimizer, schedule and dropout.

    objective:
    - "steps": each block says a step (RiM's stage 1; LOTUS, at its own positions);
    - "answer": every block says the answer (RiM's stage 2); the last one only (pause); no blocks
      (direct);
    - "solution": one read-out, steps and answer (chain of thought; the first stage of others);
    - "remaining": the solution without its first `removed_steps` steps, for which blocks stand in
      (Coconut, pause with a curriculum), or its first `removed_tokens` tokens (iCoT);
    - "distillation": solution and answer in one pass, the second taught by the first (CODI).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    objective: Literal["steps", "answer", "solution", "remaining", "distillation"]
    alignment: Literal["next_step", "own_step"] = "next_step"
    surplus_blocks: Literal["none", "answer"] = "none"
    removed_steps: Removed | None = None
    removed_tokens: Removed | None = None
    # iCoT removes o more tokens with probability proportional to exp(-smoothing * o); 0: none.
    removal_smoothing: Annotated[float, Field(ge=0)] = 4.0
    step_weight: Annotated[float, Field(ge=0)] = 1.0  # times the weighting, of read-outs of steps
    distillation_weight: Annotated[float, Field(ge=0)] = 1.0
    drop_last_step: bool = True  # of the teacher's solution under "distillation"
    # Share of the read-outs that do not see the question (training only), and what one coin is for.
    blind_readouts: Annotated[float, Field(ge=0, le=1)] = 0.0
    blind_coin: Literal["batch", "example", "readout"] = "batch"
    weighting: Weighting = "ones"
    reduction: Reduction = "sum"
    max_steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    batch_size: PositiveInt = 128
    # Examples in memory at a time; auto: as many as fit, found by trial (`rim.train.memory`).
    micro_batch_size: PositiveInt | Literal["auto"] = "auto"
    packing: bool = True  # several examples may share a row; changes the time, not the loss
    learning_rate: PositiveFloat = 1e-4
    scheduler: Literal["constant_with_warmup", "cosine", "linear", "cosine_with_min_lr"] = (
        "constant_with_warmup"
    )
    warmup: Share = 0.04
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Share, Share] = (0.9, 0.999)
    max_grad_norm: PositiveFloat = 1.0
    dropout: Share = 0.0
    bf16: bool | Literal["auto"] = False  # auto: where the machine multiplies bfloat16 itself
    gradient_checkpointing: bool = False
    evaluate_every: PositiveInt | None = None  # optimizer steps; None: ten times a stage
    # Validations in a row without a better checkpoint, after which the stage ends; None: it goes on
    patience: PositiveInt | None = None
    # What becomes of the steps that patience leaves: a run of a known length needs "next_stage".
    unused_steps: Literal["drop", "next_stage"] = "drop"
    # Other fields of transformers' TrainingArguments, such as optim; rim.train checks their names.
    trainer: dict[str, Any] = Field(default_factory=dict)

    @field_validator("trainer")
    @classmethod
    def _not_ours(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        for name in trainer:
            if name in TRAINER_OWN:
                instead = TRAINER_OWN[name]
                advice = f"use {instead}" if instead else "leave it out, the method fixes it"
                raise ValueError(f"{name!r} cannot be passed on: {advice}")
        return trainer

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of 'max_steps' and 'epochs'")
        if self.micro_batch_size != "auto" and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        if self.unused_steps == "next_stage" and self.patience is None:
            raise ValueError("unused_steps: next_stage goes with patience, which leaves some")
        if self.weighting.startswith("anneal") and self.objective != "steps":
            raise ValueError(
                f"weighting: {self.weighting} fades reasoning steps, which only objective: steps "
                "has; for read-outs of the answer there are ones and later_more"
            )
        given = (self.removed_steps is not None) + (self.removed_tokens is not None)
        if given != (self.objective == "remaining"):
            raise ValueError(
                "exactly one of 'removed_steps' and 'removed_tokens' goes with objective: "
                "remaining, and neither with another objective"
            )
        return self

    def optimizer_steps(self, num_examples: int) -> int:
        """Steps of the stage on that many training examples, as transformers' Trainer counts them:
        what is left at an epoch's end is a step of its own, and the last begun step is taken. Under
        `patience` they are the most that there can be.
        """
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None, "one of both is there"
        return math.ceil(self.epochs * math.ceil(num_examples / self.batch_size))

    def validation_interval(self, num_examples: int) -> int:
        """Optimizer steps from one validation to the next."""
        return self.evaluate_every or max(1, self.optimizer_steps(num_examples) // 10)
