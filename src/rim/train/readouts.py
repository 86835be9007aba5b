"""How a run's read-outs run: all in one pass, or each as a row of its own.

"parallel" is right for every model whose attention takes our mask as it is. Some models add to it
by column index (ALiBi), carry a state past it (linear attention, convolution), or read it in a way
of their own. No list of names tells them apart, so `model.readouts: auto` measures: the
log-likelihood of every read-out of one real example, in one pass and alone, by the very model and
dtype that train.

Shape legend: R read-outs, S rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rim.config import ConfigError, MemoryConfig, Recipe
from rim.core.collate import collate
from rim.core.forward import forward_readouts
from rim.core.layers import state_kinds
from rim.core.layout import FIELDS, PADDING, ROW_EXAMPLES, Layout, separate_rows
from rim.core.unwrap import unwrap

Way = Literal["parallel", "separate"]

#: Largest error of a read-out's mean log-probability a token that rounding explains, by dtype.
#: Measured on tiny models of the families in docs/families.md: right ones stay below 1e-5 in
#: float32 and below 0.02 in bfloat16 (8 bits of mantissa), wrong ones are off by 0.005 to 3.
#: float16 has 8 times finer steps than bfloat16.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class Decision:
    """Which way a run's read-outs run, and why.

    errors: of the ways that were measured, as `TOLERANCE` counts them.
    tokens: those of the measured example, either way.
    """

    readouts: Way
    reason: str
    errors: dict[Way, float]
    tolerance: float
    dtype: str
    tokens: dict[Way, int]

    @property
    def ratio(self) -> float:
        """How many times the tokens of parallel read-outs separate ones take."""
        return self.tokens["separate"] / self.tokens["parallel"]

    @property
    def sentence(self) -> str:
        cost = f"{self.ratio:.1f} times the tokens"
        if self.readouts == "parallel":
            return f"Read-outs: parallel ({self.reason}); separate ones would take {cost}"
        return f"Read-outs: separate ({self.reason}); that takes {cost} of parallel ones"

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def decide_readouts(recipe: Recipe, model: Any, layouts: Sequence[Layout]) -> Decision:
    """What `model.readouts` means for this model: measured on the longest of the examples.

    Raises:
        ConfigError: parallel read-outs are wrong for this model, and the recipe wants them or has
            a setting that separate ones cannot express; or both are wrong.
    """
    wanted, config = recipe.model.readouts, unwrap(model).config
    layout = max(layouts, key=lambda layout: len(layout.fields_TF))
    dtype = str(unwrap(model).dtype).removeprefix("torch.")
    tolerance = TOLERANCE.get(unwrap(model).dtype, TOLERANCE[torch.bfloat16])
    errors: dict[Way, float] = {}
    way, reason = wanted, "as the recipe says"
    if kinds := state_kinds(config):
        way = "separate"
        reason = f"layers of kind {', '.join(kinds)} carry a state that no mask divides"
    elif wanted == "auto":
        way, reason = _measure_parallel(model, layout, tolerance, errors)
    if way == "separate":
        if wanted == "parallel":
            raise ConfigError(f"model.readouts: parallel is wrong for this model: {reason}")
        if setting := recipe.parallel_only:
            raise ConfigError(
                f"this model's read-outs have to run separately ({reason}), which cannot express "
                f"{setting}; change that setting or choose another model"
            )
        errors["separate"] = readout_error(model, layout, "separate")
        # Negated, so that NaN is refused as well.
        if not errors["separate"] <= tolerance:
            raise ConfigError(
                f"this model's read-outs change by {errors['separate']:.1e} a token with what they "
                f"share a batch with ({tolerance:g} is allowed in {dtype}): neither parallel nor "
                "separate read-outs are right, so it cannot be trained"
            )
    assert way != "auto"
    tokens: dict[Way, int] = {
        "parallel": len(layout.fields_TF),
        "separate": sum(map(len, separate_rows(layout))),
    }
    return Decision(way, reason, errors, tolerance, dtype, tokens)


def _measure_parallel(
    model: Any, layout: Layout, tolerance: float, errors: dict[Way, float]
) -> tuple[Way, str]:
    """The way to go, and why; adds what was measured to `errors`."""
    try:
        error = errors["parallel"] = readout_error(model, layout, "parallel")
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as refusal:
        # The model's own code meets a mask that it was not written for, and says so in any way.
        return "separate", f"the model does not take our mask: {str(refusal).splitlines()[0]}"
    if error <= tolerance:
        return "parallel", f"measured error {error:.0e} a token, up to {tolerance:g} is rounding"
    return "separate", f"parallel ones are wrong by {error:.0e} a token, {tolerance:g} is rounding"


@torch.no_grad()
def readout_error(model: Any, layout: Layout, way: Way) -> float:
    """How far an example's read-outs are from what they are alone: in one pass, or as the padded
    rows of one batch.

    Returns:
        The largest difference, over the read-outs, of the mean log-probability of a target token.
    """
    was_training = model.training
    model.eval()
    try:
        together_R = _nll_a_token(model, collate([layout], separate=way == "separate"))
        rows = _each_row(collate([layout], separate=True))
        alone_R = torch.stack([_nll_a_token(model, row) for row in rows]).sum(0)
        return float((together_R - alone_R).abs().max())
    finally:
        model.train(was_training)


def _each_row(rows: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The rows of a batch of separate read-outs, each alone and without padding."""
    alone = []
    for s in range(len(rows[ROW_EXAMPLES])):
        width = int((rows["input_ids"][s] != PADDING).sum())
        fields = {name: rows[name][s : s + 1, :width] for name in FIELDS}
        counts = {name: rows[name] for name in ("num_readouts", "num_step_readouts")}
        alone.append(counts | {ROW_EXAMPLES: rows[ROW_EXAMPLES][s : s + 1]} | fields)
    return alone


def _nll_a_token(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """`[R]`, of ordinary causal blocks; 0 for read-outs that the batch does not hold."""
    device = unwrap(model).device
    batch = {name: x.to(device) for name, x in batch.items()}
    weights_BR = torch.ones(1, int(batch["num_readouts"].max()), device=device)
    loss = forward_readouts(model, batch, MemoryConfig(), weights_BR)
    return (loss.nll_BR / loss.tokens_BR.clamp(min=1))[0].float().cpu()
