"""Fill the trunk: prompts in, out a KV cache and the logits that every read-out begins with.

A batch is laid out as in training (`rim.core.layout`): trunk columns, then what opens each
read-out. All read-outs of a prompt share its trunk's cache, whatever their number; the same
attention rule (`rim.core.masks`) keeps them apart, here and in every later step of
`rim.infer.decode`.

Shape legend: B prompts, C cached columns (trunks end together, so padding is on the left), S
read-outs (slots) of the batch, N new columns, V vocabulary, E width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from rim.core.collate import collate
from rim.core.feedback import feedback_of, fill_batch
from rim.core.layers import Window, cache_argument, has_windows, new_cache, state_kinds, unwrap
from rim.core.layout import PADDING, TRUNK_SEGMENT, build_layout
from rim.core.masks import MaskMod, blind_tokens, get_readout_mask_mod, layer_masks
from rim.core.tokens import Prompt, PromptEncoder
from rim.methods import Readout


@dataclass
class Slot:
    """One answer being decoded: prompt `b`, read out after `after_block`; `segment` tells its
    tokens from those of the prompt's other read-outs.
    """

    b: int
    after_block: int
    sample: int
    segment: int
    position: int = 0  # of the next token
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finished: bool = False


@dataclass
class Filled:
    """Prompts in the cache. `segment_BC` says whose a column is (-1: nobody's, no query sees it),
    `block_BC` which block it belongs to, `position_BC` at which position it stands, `trunk_starts`
    at which column each prompt begins.

    plain: every prompt has one read-out, at its end, under ordinary causal attention: then the mask
    is the 2-D one of any model, which serves families that make masks of their own.
    """

    model: Any
    encoder: PromptEncoder
    prompts: list[Prompt]
    cache: DynamicCache
    segment_BC: Tensor
    block_BC: Tensor
    position_BC: Tensor
    trunk_starts: list[int]
    plain: bool

    @property
    def device(self) -> torch.device:
        return self.segment_BC.device

    def column(self, b: int, trunk_index: int) -> int:
        """The cache column of a trunk token."""
        return self.trunk_starts[b] + trunk_index

    def extend(self, segment_BN: Tensor, block_BN: Tensor, position_BN: Tensor) -> None:
        """Make room for new columns, which the next pass fills."""
        self.segment_BC = torch.cat([self.segment_BC, segment_BN], 1)
        self.block_BC = torch.cat([self.block_BC, block_BN], 1)
        self.position_BC = torch.cat([self.position_BC, position_BN], 1)

    def mask(self, new: int) -> Any:
        """The mask of the last `new` columns, in the form that the model takes."""
        memory, plain = self.encoder.format.memory, unwrap(self.model)
        if self.plain:
            # Rows with a state are of equal length (`rim.infer.decode`), so there is nothing to
            # mask; and Mamba (transformers 5.23) multiplies its one new column by all of a mask.
            return None if state_kinds(plain.config) else (self.segment_BC != PADDING).long()
        see = memory.readouts_see_question
        blind_BT = None if see else blind_tokens(self.segment_BC, self.block_BC)

        def rule(window: Window | None) -> MaskMod:
            return get_readout_mask_mod(
                self.segment_BC,
                self.block_BC,
                bidirectional_blocks=memory.attention == "bidirectional",
                blind_BT=blind_BT,
                window=window,
                position_ids_BT=self.position_BC,
            )

        return layer_masks(plain.config, rule, self.segment_BC, plain.dtype, new)

    def run(self, new: int, columns: Sequence[int], **inputs: Tensor) -> Tensor:
        """One pass over the last `new` columns (input ids or embeddings); logits `[B, W, V]` of the
        wanted ones, numbered from the first new column.
        """
        return self.model(
            **inputs,
            **{cache_argument(unwrap(self.model)): self.cache},
            attention_mask=self.mask(new),
            position_ids=self.position_BC[:, -new:],
            use_cache=True,
            logits_to_keep=torch.tensor(list(columns), device=self.device),
        ).logits

    def keep_prompts(self, kept: Sequence[int]) -> None:
        """Drop all prompts but these."""
        index_K: Any = torch.tensor(list(kept), device=self.device)
        self.cache.reorder_cache(index_K)  # picks rows of states as well as of keys and values
        self.segment_BC, self.block_BC = self.segment_BC[index_K], self.block_BC[index_K]
        self.position_BC = self.position_BC[index_K]
        self.prompts = [self.prompts[b] for b in kept]
        self.trunk_starts = [self.trunk_starts[b] for b in kept]


#: Called between trunk and read-outs; may change the cache (`rim.evaluate.cache_interventions`).
Between = Callable[[Filled], None]


def prefill(
    model: Any,
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    slots: Sequence[Slot],
    between: Between | None = None,
) -> tuple[Filled, Tensor]:
    """Run prompts once; every slot gets its position and the logits `[S, V]` of its first token.

    Args:
        slots: in the order of the prompts; those of one prompt have segments 1, 2, ...
        between: called when the trunks alone are in the cache. Each slot then follows the last
            block of its prompt, and if nothing opens the answer, the last token of that block runs
            again, live, so that the first token of the answer is predicted from what it finds.
    """
    by_prompt: list[list[Slot]] = [[] for _ in prompts]
    for slot in slots:
        by_prompt[slot.b].append(slot)
    layouts = [
        build_layout(
            prompt.trunk,
            [Readout(s.after_block, (), prompt.prefix_ids(s.after_block)) for s in own],
        )
        for prompt, own in zip(prompts, by_prompt, strict=True)
    ]
    width = max(len(prompt.trunk.ids) for prompt in prompts)
    trunk_starts = [width - len(prompt.trunk.ids) for prompt in prompts]
    predictors: list[int] = []  # of every slot, the column whose token predicts its first one
    for first, layout, own in zip(trunk_starts, layouts, by_prompt, strict=True):
        for r, (slot, start) in enumerate(zip(own, layout.starts, strict=True)):
            predictors.append(first + start)
            slot.position = layout.next_position(r)
    inner = unwrap(model)
    batch = {name: x.to(inner.device) for name, x in collate(layouts, align_trunks=True).items()}
    filled = Filled(
        model,
        encoder,
        list(prompts),
        new_cache(inner.config),
        segment_BC=batch["segment_ids"][:, :0],
        block_BC=batch["block_ids"][:, :0],
        position_BC=batch["position_ids"][:, :0].long(),
        trunk_starts=trunk_starts,
        plain=_is_plain(encoder, prompts, slots)
        # What happens in between may leave holes, and a model counts its windows in columns.
        and (between is None or not has_windows(inner.config)),
    )
    by_column = _fill(filled, batch, width, predictors, between)
    chosen = [by_column[column][slot.b] for column, slot in zip(predictors, slots, strict=True)]
    return filled, torch.stack(chosen)


def _is_plain(encoder: PromptEncoder, prompts: Sequence[Prompt], slots: Sequence[Slot]) -> bool:
    """Whether ordinary causal attention is the rule: one read-out a prompt, behind all blocks."""
    memory = encoder.format.memory
    return (
        len(slots) == len(prompts)
        and all(s.after_block == prompts[s.b].trunk.num_blocks for s in slots)
        and memory.attention == "causal"
        and (memory.readouts_see_question or not any(s.after_block for s in slots))
    )


def _fill(
    filled: Filled,
    batch: dict[str, Tensor],
    width: int,
    predictors: Sequence[int],
    between: Between | None,
) -> dict[int, Tensor]:
    """Run trunks (`width` columns), what happens in between, and the read-outs' openings, in one
    pass wherever that is possible; the logits `[B, V]` of the columns in `predictors`.
    """
    position_BT = batch["position_ids"].clamp(min=0).long()
    name, input_BT, done = "input_ids", batch["input_ids"].clamp(min=0).long(), 0
    if feedback := feedback_of(filled.encoder):
        fed = fill_batch(filled.model, batch, feedback)
        # From the first column whose logits are wanted on, the columns run (again).
        name, input_BT, done = "inputs_embeds", fed.embeddings_BWE, min(fed.done, *predictors)
        filled.cache = fed.cache
        if done < fed.done:
            filled.cache.crop(done - fed.done)  # negative: how many go
    logits_by_column: dict[int, Tensor] = {}

    def run(start: int, end: int) -> None:
        known = filled.segment_BC.shape[1]
        segment_BN, block_BN = (batch[x][:, known:end] for x in ("segment_ids", "block_ids"))
        filled.extend(segment_BN, block_BN, position_BT[:, known:end])
        wanted = sorted({column for column in predictors if start <= column < end})
        columns = [column - start for column in wanted or [end - 1]]
        logits_BWV = filled.run(end - start, columns, **{name: input_BT[:, start:end]})
        logits_by_column.update(zip(wanted, logits_BWV.unbind(1), strict=bool(wanted)))

    if between is None:
        run(done, position_BT.shape[1])
        return logits_by_column
    run(done, width)
    between(filled)
    if position_BT.shape[1] > width:
        run(width, position_BT.shape[1])
    elif not filled.encoder.answer_has_opening(filled.prompts[0]):
        _repeat_last_column(filled)
        again_B1V = filled.run(1, [0], **{name: input_BT[:, width - 1 : width]})
        logits_by_column[width - 1] = again_B1V[:, 0]
    return logits_by_column


def _repeat_last_column(filled: Filled) -> None:
    """Make room for the last trunk token once more, the old one unseen."""
    # A clone: the columns' own fields stay as they are for who holds them.
    filled.segment_BC = filled.segment_BC.clone()
    filled.segment_BC[:, -1] = PADDING
    block_B1 = filled.block_BC[:, -1:]
    filled.extend(torch.full_like(block_B1, TRUNK_SEGMENT), block_B1, filled.position_BC[:, -1:])
