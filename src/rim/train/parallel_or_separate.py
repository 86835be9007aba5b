"""How a run's read-outs run: all in one pass, or each as a row of its own.

"parallel" is right for every model whose attention takes our mask as it is. Some models add to it
by column index (ALiBi), carry a state past it (linear attention, convolution), or read it in a way
of their own. No list of names tells them apart, so `model.readouts: auto` measures: the
log-likelihood of every read-out of one real example, in one pass and alone, by the very model and
dtype that train. It also decodes an answer, since a cache can be wrong on its own.

Shape legend: R read-outs, S rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rim.config import ConfigError, MemoryConfig, Recipe
from rim.core.collate import collate, target_fields
from rim.core.forward import forward_readouts
from rim.core.layers import evaluating, state_kinds, unwrap
from rim.core.layout import FIELDS, PADDING, ROW_EXAMPLES, LaidOut, separate_rows
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.infer.decode import generate
from rim.train.layout_store import lengths

Way = Literal["parallel", "separate"]

#: What rounding may change in the mean log-probability a token of a read-out, by dtype. `floor` is
#: always allowed, `cap` never exceeded; between them it is `MARGIN` times what the same rows change
#: by when they share a padded batch, which is right by construction. In
#: float32 right models and wrong ones are far apart (docs/families.md); in bfloat16 (8 bits of
#: mantissa) the rounding of a deep right model is as large as some real errors.
ROUNDING: dict[Any, dict[str, float]] = {
    torch.float32: {"floor": 1e-4, "cap": 1e-3},
    torch.float16: {"floor": 3e-3, "cap": 0.05},
    torch.bfloat16: {"floor": 0.02, "cap": 0.3},
}
MARGIN = 3

#: Decoded to see whether answers are right: one token comes from the prefill, the others from it.
ANSWER_TOKENS = 3

#: How a model's own code may put it that it was not written for our mask, or for a cache.
_OWN_WORDS = (AttributeError, KeyError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Decision:
    """Which way a run's read-outs run, and why.

    errors: of the ways that were measured, see `readout_error`; tolerance: what is rounding.
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
        if self.ratio == 1:  # one read-out an example: there is nothing to run apart
            return f"Read-outs: {self.readouts} ({self.reason})"
        cost = f"{self.ratio:.1f} times the tokens"
        if self.readouts == "parallel":
            return f"Read-outs: parallel ({self.reason}); separate ones would take {cost}"
        return f"Read-outs: separate ({self.reason}); that takes {cost} of parallel ones"

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def decide_readouts(
    recipe: Recipe,
    model: Any,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    layouts: Sequence[LaidOut],
) -> Decision:
    """What `model.readouts` means for this model: measured on the longest of the examples.

    Args:
        layouts: of the examples, in their order.

    Raises:
        ConfigError: parallel read-outs are wrong for this model, and the recipe wants them or has
            a setting that separate ones cannot express; both are wrong; or answers decoded over a
            cache are.
    """
    longest = int(np.argmax(lengths(layouts)))
    example, layout = examples[longest], layouts[longest]
    dtype = unwrap(model).dtype
    rounding = ROUNDING.get(dtype, ROUNDING[torch.bfloat16])
    errors: dict[Way, float] = {"separate": readout_error(model, layout, "separate")}
    tolerance = min(max(rounding["floor"], MARGIN * errors["separate"]), rounding["cap"])
    way, reason = _choose_way(recipe, model, layout, tolerance, errors)
    if way == "separate":
        _check_separate(recipe, reason, errors["separate"], rounding["cap"])
    _check_answers(model, encoder, way, example.question, rounding["cap"])
    tokens: dict[Way, int] = {
        "parallel": len(layout.fields_TF),
        "separate": sum(map(len, separate_rows(layout))),
    }
    name = str(dtype).removeprefix("torch.")
    return Decision(way, reason, errors, tolerance, name, tokens)


def _choose_way(
    recipe: Recipe, model: Any, layout: LaidOut, tolerance: float, errors: dict[Way, float]
) -> tuple[Way, str]:
    """Which way read-outs run, and why; what is measured for that goes to `errors`."""
    if kinds := state_kinds(unwrap(model).config):
        return "separate", f"no mask of ours divides layers of kind {', '.join(kinds)}"
    if not recipe.model.takes_our_mask:
        return "separate", f"{recipe.model.attention} takes no mask of ours"
    if recipe.model.readouts != "auto":
        return recipe.model.readouts, "as the recipe says"
    try:
        error = errors["parallel"] = readout_error(model, layout, "parallel")
    except torch.OutOfMemoryError:
        raise
    except _OWN_WORDS as refusal:
        return "separate", f"the model does not take our mask: {str(refusal).splitlines()[0]}"
    if error <= tolerance:
        return "parallel", f"measured error {error:.0e} a token, up to {tolerance:.0e} is rounding"
    return (
        "separate",
        f"parallel ones are wrong by {error:.0e} a token, up to {tolerance:.0e} is rounding",
    )


def _check_separate(recipe: Recipe, reason: str, error: float, allowed: float) -> None:
    """Refuse separate read-outs that the recipe has no use for, or that are wrong."""
    if recipe.model.readouts == "parallel":
        raise ConfigError(f"model.readouts: parallel is wrong for this model: {reason}")
    if setting := recipe.parallel_only:
        raise ConfigError(
            f"this model's read-outs have to run separately ({reason}), which cannot express "
            f"{setting}; change that setting or choose another model"
        )
    if not error <= allowed:  # negated, so that NaN is refused as well
        raise ConfigError(
            f"this model's read-outs change by {error:.0e} a token with what they share a batch "
            f"with ({allowed:g} could be rounding): neither parallel nor separate read-outs are "
            "right, so it cannot be trained"
        )


@torch.no_grad()
def readout_error(model: Any, layout: LaidOut, way: Way) -> float:
    """How far the first and the last read-out of an example are from what they are alone: in one
    pass with all others, or as two rows of a padded batch.

    Returns:
        The larger difference of the mean log-probability of a target token.
    """
    ends = sorted({0, layout.num_readouts - 1})
    rows = collate([layout], separate=True)
    together = _rows(rows, ends) if way == "separate" else collate([layout])
    with evaluating(model):
        together_R = _nll_a_token(model, together)
        alone_R = torch.stack([_nll_a_token(model, _rows(rows, [r])) for r in ends]).sum(0)
    return float((together_R - alone_R)[ends].abs().max())


def _rows(batch: dict[str, Tensor], chosen: list[int]) -> dict[str, Tensor]:
    """Some rows of a batch of separate read-outs, padded to the longest of them."""
    width = int((batch["input_ids"][chosen] != PADDING).sum(1).max())
    rows = {name: batch[name][chosen, :width] for name in (*FIELDS, "example_ids")}
    rows[ROW_EXAMPLES] = batch[ROW_EXAMPLES][chosen]
    rows |= {name: batch[name] for name in ("num_readouts", "num_step_readouts")}
    return rows | target_fields(rows)


def _check_answers(
    model: Any, encoder: PromptEncoder, way: Way, question: str, allowed: float
) -> None:
    """Refuse a model whose cached decoding is not what plain passes over the whole text say."""
    prompt_format = encoder.format.model_copy(update={"readouts": way})
    if prompt_format.parallel_only is None:  # else no plain pass says the same
        decided = PromptEncoder(encoder.tokenizer, prompt_format)
        try:
            error = answer_error(model, decided, question)
        except torch.OutOfMemoryError:
            raise
        except _OWN_WORDS as refusal:
            raise ConfigError(
                "this model cannot be asked: decoding over a cache failed in its own code "
                f"({str(refusal).splitlines()[0]})"
            ) from refusal
        if not error <= allowed:
            raise ConfigError(
                f"answers of this model are wrong by {error:.0e} a token when they are decoded "
                f"over a cache ({allowed:g} could be rounding), so it cannot be asked"
            )


@torch.no_grad()
def answer_error(model: Any, encoder: PromptEncoder, question: str) -> float:
    """How far the log-probabilities of short answers, decoded after one and two blocks, are from
    those of plain passes without a cache; a token.
    """
    blocks, error = min(2, encoder.format.trained_blocks), 0.0
    (answers,) = generate(
        model, encoder, [question], blocks=blocks, after="all", max_new_tokens=ANSWER_TOKENS
    )
    for answer in answers:
        prompt = encoder.prompt_ids(question, answer.after_block)
        emitted = [*answer.token_ids, *([encoder.stop_id] if answer.finished else [])]
        ids_1T = torch.tensor([[*prompt, *emitted]], device=unwrap(model).device)
        with evaluating(model):
            logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0, len(prompt) - 1 : -1]
        logits_TV[:, list(encoder.memory_ids)] = float("-inf")  # as decoding does
        targets_T1 = ids_1T[0, len(prompt) :, None]
        plain = logits_TV.float().log_softmax(-1).gather(1, targets_T1).sum().item()
        error = max(error, abs(plain - answer.logprob) / len(emitted))
    return error


def _nll_a_token(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """`[R]`, of ordinary causal blocks; 0 for read-outs that the batch does not hold."""
    device = unwrap(model).device
    batch = {name: x.to(device) for name, x in batch.items()}
    weights_BR = torch.ones(1, int(batch["num_readouts"].max()), device=device)
    loss = forward_readouts(model, batch, MemoryConfig(), weights_BR)
    return (loss.nll_BR / loss.tokens_BR.clamp(min=1))[0].float().cpu()
