"""Where blocks look: attention from each block to spans of the question and to earlier blocks.

Shape legend: B batch, H heads, Q and T tokens (as queries, as keys), L layers, K blocks, S spans
and blocks looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rim.core.layers import text_config, unwrap
from rim.evaluate.states import forward_trunks
from rim.infer.reasoner import Reasoner

#: Pieces of equal length that every question is cut into.
SPANS = 5


def attention_map(
    reasoner: Reasoner,
    questions: Sequence[str],
    blocks: int,
    *,
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Shares `[L, K, SPANS + K]` of a block's attention, averaged over heads, its tokens and
    questions.

    The first columns are the question's spans, first to last; then come the blocks, the block
    itself among them. Only eager attention gives its weights out, so the model runs on that.
    """
    plain = unwrap(reasoner.model)
    before = plain.config._attn_implementation
    plain.set_attn_implementation("eager")
    config = text_config(plain.config)
    config.output_attentions = True
    total: Tensor | None = None
    try:
        for start in range(0, len(questions), batch_size):
            chosen = questions[start : start + batch_size]
            output, ends_BK, block_BT = forward_trunks(reasoner, chosen, blocks)
            onto_BTS = _membership(ends_BK, block_BT, blocks)
            queries_BKT = onto_BTS[:, :, SPANS:].transpose(1, 2)
            queries_BKT = queries_BKT / queries_BKT.sum(-1, keepdim=True)
            found_LKS = torch.stack(
                [
                    (queries_BKT @ weights_BHQT.float().mean(1) @ onto_BTS).sum(0)
                    for weights_BHQT in output.attentions
                ]
            ).cpu()
            total = found_LKS if total is None else total + found_LKS
            if progress:
                progress(len(chosen))
    finally:
        config.output_attentions = False
        plain.set_attn_implementation(before)
    assert total is not None
    return {
        "questions": len(questions),
        "columns": [
            *(f"question {i + 1}/{SPANS}" for i in range(SPANS)),
            *(f"block {k}" for k in range(1, blocks + 1)),
        ],
        "shares": [
            [[round(value, 4) for value in row] for row in layer]
            for layer in (total / len(questions)).tolist()
        ],
    }


def _membership(ends_BK: Tensor, block_BT: Tensor, blocks: int) -> Tensor:
    """Which span or block each column belongs to, as 0 and 1 `[B, T, S]`."""
    width = block_BT.shape[1]
    onto_BTS = torch.zeros(*block_BT.shape, SPANS + blocks, device=block_BT.device)
    for b, end in enumerate(ends_BK[:, 0].tolist()):
        columns = torch.nonzero(block_BT[b] == 0)[:, 0].tolist()
        for i, column in enumerate(columns):
            onto_BTS[b, column, i * SPANS // len(columns)] = 1
        assert columns[-1] == end < width
    for k in range(1, blocks + 1):
        onto_BTS[:, :, SPANS + k - 1] = (block_BT == k).float()
    return onto_BTS
