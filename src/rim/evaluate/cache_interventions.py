"""Interventions on the KV cache, between prefill and read-out: what causal questions need.

What a model has computed of a prompt lies in the columns of its cache. So "zero, shuffle, swap,
hide, transplant" are one thing: a slice of one cache (a part of the prompt, keys or values, a band
of layers) written into another, before the answer is decoded as ever. Each function below returns
what `rim.infer.decode.generate` takes as `between`.

**What stays alive.** An intervention alters what lies in the cache; the tokens behind it run
afterwards, live, and see the question. Where the answer has an opening of its own ("####", the
assistant's header), these are the tokens of the read-out. Where it has none, the last token of the
last block runs again, too, since it predicts the answer's first token: with all layers, and the
question in sight, it can do on its own whatever a direct answer could. A control that changes
nothing then says that this token needs no blocks, not that the blocks hold nothing.

**Positions.** Rotary keys carry their position. A slice that comes to stand elsewhere is turned
there, so it reads as if it had been computed in its new place. Models with learned positions
(GPT-2) carry them in the states themselves: for them a shuffled order is seen by nobody, by
construction.

This reading of "zeroed, shuffled and swapped block states" is ours.

Shape legend: B prompts, N columns of a part, H key heads, D head width.
"""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rim.config import ConfigError
from rim.core.layers import unwrap
from rim.core.layout import PADDING
from rim.core.tokens import Prompt
from rim.infer.prefill import Between, Filled, Slot, prefill


@dataclass(frozen=True)
class Part:
    """A part of a prompt: the question, one block (`number` from 1), all blocks (with what opens
    them), the blocks up to a number, the last so many tokens, or everything.
    """

    kind: Literal["question", "block", "blocks", "up_to", "last", "everything"]
    number: int = 0

    def columns(self, prompt: Prompt) -> list[int]:
        """Trunk indices of the part."""
        trunk = prompt.trunk
        if self.kind == "question":
            return list(trunk.columns(0))
        if self.kind == "blocks":
            return list(range(trunk.ends[0] + 1, len(trunk.ids)))
        if self.kind == "everything":
            return list(range(len(trunk.ids)))
        if self.kind == "last":
            return list(range(max(0, len(trunk.ids) - self.number), len(trunk.ids)))
        if not 1 <= self.number <= trunk.num_blocks:
            raise ConfigError(f"there is no block {self.number}, the prompt has {trunk.num_blocks}")
        if self.kind == "up_to":
            return list(range(trunk.ends[0] + 1, trunk.ends[self.number] + 1))
        return list(trunk.columns(self.number))


QUESTION, BLOCKS, EVERYWHERE = Part("question"), Part("blocks"), Part("everything")


@dataclass(frozen=True)
class Slice:
    """The part of a column to write: keys, values or both, and in which layers (None: all)."""

    keys: bool = True
    values: bool = True
    layers: range | None = None


EVERYTHING = Slice()


def write(
    target: Filled,
    columns_BN: Tensor,
    source: Filled | None,
    source_columns_BN: Tensor,
    what: Slice = EVERYTHING,
) -> None:
    """Write columns of one cache into another (or into the same one: they are read first).

    Args:
        columns_BN: trunk indices in the target. source_columns_BN: those in the source.
        source: where from, prompt by prompt; None writes zeros.

    Raises:
        ConfigError: caches without keys and values (recurrent layers), or rotary positions that
            this library cannot turn.
    """
    rows_B1 = torch.arange(len(target.prompts), device=target.device)[:, None]
    here_BN = columns_BN + _starts(target)
    there_BN = source_columns_BN + _starts(source) if source is not None else here_BN
    delta_BN = columns_BN - source_columns_BN
    layers = target.cache.layers
    for index in what.layers if what.layers is not None else range(len(layers)):
        layer = layers[index]
        if not isinstance(getattr(layer, "keys", None), Tensor):
            raise ConfigError("this model's cache has no keys and values to intervene on")
        origin = layer if source is None else source.cache.layers[index]
        for name, wanted in (("keys", what.keys), ("values", what.values)):
            if not wanted:
                continue
            # [B, H, C, D], so the columns are picked behind the heads: [B, N, H, D].
            states_BNHD = getattr(origin, name)[rows_B1, :, there_BN]
            if source is None:
                states_BNHD = torch.zeros_like(states_BNHD)
            elif name == "keys":
                states_BNHD = turn_keys(target.model, states_BNHD, delta_BN, index)
            changed = getattr(layer, name).clone()
            changed[rows_B1, :, here_BN] = states_BNHD
            setattr(layer, name, changed)


def turn_keys(model: Any, keys_BNHD: Tensor, delta_BN: Tensor, layer: int) -> Tensor:
    """A layer's keys as they would be `delta` positions further on; as they are where nothing
    rotates them.

    Raises:
        ConfigError: a rotation that this library cannot repeat.
    """
    if not bool(delta_BN.any()):
        return keys_BNHD
    plain = unwrap(model)
    if plain not in _TURNS:
        _TURNS[plain] = _measured_turns(plain)
    return _rotated(plain, keys_BNHD, delta_BN) if _TURNS[plain][layer] else keys_BNHD


#: Of each model, which layers rotate their keys: some families leave layers out.
_TURNS: WeakKeyDictionary[Any, tuple[bool, ...]] = WeakKeyDictionary()


@torch.no_grad()
def _measured_turns(model: Any) -> tuple[bool, ...]:
    """Measured, since families say it in many ways: what three tokens' keys are one position on.

    Raises:
        ConfigError: they are neither as they were nor as `_rotated` has them.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return (False,) * model.config.get_text_config().num_hidden_layers  # biases, as in MPT
    ids_BT = torch.tensor([[0, 1, 2]], device=model.device)
    first, moved = (
        model(input_ids=ids_BT, position_ids=ids_BT + n, use_cache=True, output_hidden_states=True)
        for n in (0, 1)
    )
    states = [output.past_key_values.layers for output in (first, moved)]
    if not _alike(first.hidden_states[0], moved.hidden_states[0]):
        return (False,) * len(states[0])  # learned positions, in the states themselves
    return tuple(_turns(model, *layers) for layers in zip(*states, strict=True))


def _turns(model: Any, first: Any, moved: Any) -> bool:
    """Whether one layer rotates, from its cache at positions 0.. and 1.."""
    before, after = (getattr(layer, "keys", None) for layer in (first, moved))
    if not isinstance(before, Tensor) or not isinstance(after, Tensor) or _alike(before, after):
        return False  # a recurrent layer, or one without positions
    before_BNHD, after_BNHD = before.transpose(1, 2), after.transpose(1, 2)
    ones_BN = torch.ones(before_BNHD.shape[:2], dtype=torch.long, device=before_BNHD.device)
    if not _alike(_rotated(model, before_BNHD, ones_BN), after_BNHD):
        raise _unknown_turn(model)
    return True


def _alike(one: Tensor, other: Tensor) -> bool:
    tolerance = 1e-3 if one.dtype == torch.float32 else 0.05
    return bool((one - other).abs().max() <= tolerance * other.abs().max())


def _rotated(model: Any, keys_BNHD: Tensor, delta_BN: Tensor) -> Tensor:
    rotary = getattr(model.base_model, "rotary_emb", None)
    rotate = getattr(sys.modules[type(model).__module__], "apply_rotary_pos_emb", None)
    if rotary is None or rotate is None:
        raise _unknown_turn(model)
    keys_BHND = keys_BNHD.transpose(1, 2)
    try:
        cos, sin = rotary(keys_BNHD, delta_BN)
        scaling = getattr(rotary, "attention_scaling", 1.0)  # already in the keys
        _, turned_BHND = rotate(keys_BHND, keys_BHND, cos / scaling, sin / scaling)
    except (TypeError, RuntimeError):  # other angles by kind of layer; a part of the head alone
        raise _unknown_turn(model) from None
    return turned_BHND.transpose(1, 2)


def _unknown_turn(model: Any) -> ConfigError:
    return ConfigError(
        f"{type(model).__name__} turns its keys in a way that is not known here; blocks can only "
        "be written to where they came from (same length of question)"
    )


def _starts(filled: Filled) -> Tensor:
    return torch.tensor(filled.trunk_starts, device=filled.device)[:, None]


def _columns(filled: Filled, part: Part) -> Tensor:
    """Trunk indices `[B, N]` of a part."""
    columns = [part.columns(prompt) for prompt in filled.prompts]
    if len({len(own) for own in columns}) > 1:
        raise ConfigError("these prompts have parts of different lengths; intervene one by one")
    return torch.tensor(columns, dtype=torch.long, device=filled.device)


# --- what `generate` takes as `between` -----------------------------------------------------------


def zero(part: Part = BLOCKS, what: Slice = EVERYTHING) -> Between:
    """Keys and values of the part become 0 (no state that a model ever computes)."""

    def between(filled: Filled) -> None:
        columns_BN = _columns(filled, part)
        write(filled, columns_BN, None, columns_BN, what)

    return between


def shuffle(seed: int = 0) -> Between:
    """The blocks go round by a random number of places (drawn from the seed and the
    question), so that none keeps its own.
    """

    def between(filled: Filled) -> None:
        sources = []
        for prompt in filled.prompts:
            blocks = prompt.trunk.num_blocks
            rng = random.Random(f"{seed}/{prompt.question}")
            turn = rng.randrange(1, blocks) if blocks > 1 else 0
            order = [(k + turn) % blocks + 1 for k in range(blocks)]
            sources.append([i for k in order for i in prompt.trunk.columns(k)])
        columns = [
            [i for k in range(1, p.trunk.num_blocks + 1) for i in p.trunk.columns(k)]
            for p in filled.prompts
        ]
        columns_BN, sources_BN = torch.tensor([columns, sources], device=filled.device)
        write(filled, columns_BN, filled, sources_BN)

    return between


def transplant(
    partners: Mapping[str, str], part: Part = BLOCKS, what: Slice = EVERYTHING
) -> Between:
    """The part is that of another question: `partners` names one for every question."""

    def between(filled: Filled) -> None:
        encoder, prompts = filled.encoder, filled.prompts
        partner = [encoder.prompt(partners[p.question], p.trunk.num_blocks) for p in prompts]
        other = fill_trunks(filled, partner)
        columns_BN, source_BN = _columns(filled, part), _columns(other, part)
        if columns_BN.shape != source_BN.shape:
            raise ConfigError("the other question's part has another length; choose partners alike")
        write(filled, columns_BN, other, source_BN, what)

    return between


def hide(part: Part = QUESTION) -> Between:
    """Nothing that comes after the trunk sees the part."""

    def between(filled: Filled) -> None:
        filled.segment_BC = filled.segment_BC.clone()
        for b, prompt in enumerate(filled.prompts):
            for index in part.columns(prompt):
                filled.segment_BC[b, filled.column(b, index)] = PADDING

    return between


def fill_trunks(like: Filled, prompts: Sequence[Prompt]) -> Filled:
    """Other prompts in a cache of their own, by the same model."""
    slots = [Slot(b, prompt.trunk.num_blocks, 0, 1) for b, prompt in enumerate(prompts)]
    return prefill(like.model, like.encoder, prompts, slots)[0]
