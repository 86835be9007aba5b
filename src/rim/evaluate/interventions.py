"""Block states altered between prefill and answer: what controls of latent reasoning need.

A clean pass records the input of every layer at every block token. A second pass runs with those
inputs replaced: by zero, by another block's, or by those of another question. The last token of the
last block (or, where one token closes all blocks, that one) is left live, so the read-out, this
token and the answer's, has to work with what it finds. States are replaced before keys are rotated,
so each keeps its own position. This reading of "zeroed, shuffled and swapped block states" is ours.

Shape legend: B prompts, T columns ending together, E width, K blocks of L tokens.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rim.config import ConfigError
from rim.core.unwrap import unwrap

InterventionKind = Literal["zero", "shuffle", "swap", "hide_question"]


@dataclass(frozen=True)
class Intervention:
    """zero: every layer's input at block tokens is 0. shuffle: the blocks trade places, none stays.
    swap: the blocks are those of another question (`partners`). hide_question: the read-out sees
    the blocks only.
    """

    kind: InterventionKind
    seed: int = 0
    partners: Mapping[str, str] = field(default_factory=dict)

    @property
    def hides_question(self) -> bool:
        return self.kind == "hide_question"

    def alter(
        self, states: Sequence[Tensor], questions: Sequence[str], blocks: int, block_length: int
    ) -> list[Tensor]:
        """Replacements `[B, T, E]` of every layer's input (zero and shuffle)."""
        if self.kind == "zero":
            return [torch.zeros_like(state) for state in states]
        width = states[0].shape[1]
        source_BT = torch.tensor(
            [
                _shuffled_columns(f"{self.seed}/{question}", width, blocks, block_length)
                for question in questions
            ],
            device=states[0].device,
        )
        rows_B1 = torch.arange(len(questions), device=source_BT.device)[:, None]
        return [state[rows_B1, source_BT] for state in states]


def _shuffled_columns(seed: str, width: int, blocks: int, block_length: int) -> list[int]:
    """For every column the one whose state it gets: block k takes all of another block's.

    Blocks go round by a random number of places, so that no block keeps its own.
    """
    turn = random.Random(seed).randrange(1, blocks) if blocks > 1 else 0
    start = width - blocks * block_length
    moved = [
        start + (k + turn) % blocks * block_length + i
        for k in range(blocks)
        for i in range(block_length)
    ]
    return [*range(start), *moved]


def block_states(
    model: Any, embeddings_BTE: Tensor, mask: Any, position_BT: Tensor
) -> list[Tensor]:
    """The input of every layer in a clean pass, `[B, T, E]` each."""
    output = model(
        inputs_embeds=embeddings_BTE,
        attention_mask=mask,
        position_ids=position_BT,
        use_cache=False,
        output_hidden_states=True,
        logits_to_keep=1,
    )
    return list(output.hidden_states[:-1])


def decoder_layers(model: Any) -> nn.ModuleList:
    """The stack of layers of a transformers decoder, whatever it is called there."""
    for child in unwrap(model).base_model.children():
        if isinstance(child, nn.ModuleList):
            return child
    raise ConfigError(f"{type(model).__name__} has no list of layers to intervene on")


@contextlib.contextmanager
def patched_layers(model: Any, states: Sequence[Tensor], where_BT: Tensor) -> Iterator[None]:
    """Within the context every layer's input is replaced by `states` where `where_BT` is True."""
    layers = decoder_layers(model)
    assert len(layers) == len(states), "one state for every layer"

    def hook_for(state_BTE: Tensor) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                hidden = torch.where(where_BT[:, :, None], state_BTE, args[0])
                return (hidden, *args[1:]), kwargs
            hidden = torch.where(where_BT[:, :, None], state_BTE, kwargs["hidden_states"])
            return args, kwargs | {"hidden_states": hidden}

        return hook

    handles = [
        layer.register_forward_pre_hook(hook_for(state), with_kwargs=True)
        for layer, state in zip(layers, states, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
