"""Hidden states where blocks end: gathered by the training forward pass, kept in safetensors.

One file holds `SHARD` questions, so memory stays bounded whatever the data set, and an interrupted
run goes on behind its last whole file. Layer 0 is the embeddings, the last one is behind the final
norm; block 0 is the question's last token.

Shape legend: N questions, B batch, T flat length, K blocks (index 0: the question), L layers (index
0: embeddings), D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rim.config import ConfigError
from rim.core.collate import collate
from rim.core.feedback import feedback_of
from rim.core.forward import forward_batch
from rim.core.layers import unwrap
from rim.core.layout import build_layout
from rim.infer.reasoner import Reasoner
from rim.methods import Readout
from rim.models.folder import weight_files
from rim.results import read_json, write_json

SHARD = 256
INDEX = "index.json"


def forward_trunks(
    reasoner: Reasoner, questions: Sequence[str], blocks: int
) -> tuple[Any, Tensor, Tensor]:
    """Questions with their blocks through the training forward pass, nothing read out.

    Returns:
        The model's output; the batch's column of every block's last token `[B, K + 1]`; and the
        block of every column `[B, T]` (-1: padding).
    """
    model, encoder = reasoner.model, reasoner.encoder
    prompts = [encoder.prompt(question, blocks) for question in questions]
    layouts = [build_layout(prompt.trunk, [Readout(blocks)]) for prompt in prompts]
    device = unwrap(model).device
    # Padding on the left would reach the states of recurrent layers, which know no mask of ours.
    aligned = feedback_of(encoder) is not None
    batch = {name: x.to(device) for name, x in collate(layouts, align_trunks=aligned).items()}
    width = batch["input_ids"].shape[1]
    starts = [width - len(p.trunk.ids) if aligned else 0 for p in prompts]
    ends = [[s + end for end in p.trunk.ends] for s, p in zip(starts, prompts, strict=True)]
    with torch.inference_mode():
        output = forward_batch(
            model, batch, encoder.format.memory, feedback=feedback_of(encoder), hidden_states=True
        )
    return output, torch.tensor(ends, device=device), batch["block_ids"]


def block_states(reasoner: Reasoner, questions: Sequence[str], blocks: int) -> Tensor:
    """States `[B, K + 1, L + 1, D]` of one batch, float32 on the CPU."""
    output, ends_BK, _ = forward_trunks(reasoner, questions, blocks)
    rows_B1 = torch.arange(len(questions), device=ends_BK.device)[:, None]
    layers = [state_BTD[rows_B1, ends_BK].float().cpu() for state_BTD in output.hidden_states]
    return torch.stack(layers, 2)


@dataclass(frozen=True)
class States:
    """States on disk; one block and layer of all questions is read at a time."""

    folder: Path
    questions: int
    blocks: int
    layers: int

    def at(self, block: int, layer: int) -> np.ndarray:
        """`[N, D]`."""
        pieces = []
        for file in self._files():
            with safe_open(file, framework="np") as tensors:
                pieces.append(tensors.get_slice("states")[:, block, layer, :])
        return np.concatenate(pieces)

    def _files(self) -> list[Path]:
        return [shard_file(self.folder, start) for start in range(0, self.questions, SHARD)]


def shard_file(folder: Path, start: int) -> Path:
    return folder / f"states-{start:06d}.safetensors"


def collect_states(
    reasoner: Reasoner,
    questions: Sequence[str],
    folder: Path,
    *,
    blocks: int,
    source: str,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> States:
    """Write what is not there yet.

    Args:
        source: what the states depend on beside the questions: the model's fingerprint.
        progress: called with the number of questions done since the last call.

    Raises:
        ConfigError: the folder holds the states of another model or of other questions.
    """
    told = {
        "questions": len(questions),
        "hash": hashlib.sha256("\n".join(questions).encode()).hexdigest()[:16],
        "blocks": blocks,
        "model": source,
    }
    index = folder / INDEX
    if index.exists():
        known = read_json(index)
        if {key: known.get(key) for key in told} != told:
            raise ConfigError(
                f"{folder} holds states of another model or of other questions; give --overwrite, "
                "or another --out"
            )
    else:
        write_json(index, told)
    layers = 0
    for start in range(0, len(questions), SHARD):
        file = shard_file(folder, start)
        own = questions[start : start + SHARD]
        if not file.exists():
            parts = []
            for i in range(0, len(own), batch_size):
                parts.append(block_states(reasoner, own[i : i + batch_size], blocks))
                if progress:
                    progress(len(own[i : i + batch_size]))
            partial = file.with_suffix(".partial")
            save_file({"states": torch.cat(parts)}, partial)
            partial.replace(file)
        elif progress:
            progress(len(own))
        with safe_open(file, framework="np") as tensors:
            layers = tensors.get_slice("states").get_shape()[2] - 1
    return States(folder, len(questions), blocks, layers)


def fingerprint(folder: Path) -> str:
    """Hash the names, sizes and times of a model folder's weights, which are not read for it."""
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in weight_files(folder)]
    return hashlib.sha256(json.dumps(sorted(stats)).encode()).hexdigest()[:16]
