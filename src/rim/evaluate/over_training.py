"""States of several checkpoints on the same questions: what `rim analyze` shows beside each other.

A run's own are the model that it started from, the best model of every stage, and the finished one;
other runs and checkpoints can be named. One model is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rim.config import ConfigError
from rim.config.recipe_yaml import load_recipe
from rim.core.layers import text_config, unwrap
from rim.evaluate.geometry import POINTS, over_checkpoints, shown_layers
from rim.evaluate.states import block_states
from rim.infer.reasoner import Reasoner, load
from rim.train.run_folder import RunFolder

BATCH = 32
#: Gives a model when it is its turn.
Loader = Callable[[], Reasoner]


def own_checkpoints(run: Path, device: str) -> dict[str, Loader]:
    """The models that a run kept of its stages, but for the last, which is the finished model."""
    folder = RunFolder(run)
    if not folder.config_file.exists():
        return {}
    stages = load_recipe(folder.config_file).stages
    found: dict[str, Loader] = {}
    for index, stage in enumerate(stages[:-1]):
        result = folder.stage_result(index, stage)
        if result.exists():
            found[f"after {stage.name}"] = lambda at=result: load(at, device=device)
    return found


def beside(
    models: Mapping[str, Loader],
    reasoner: Reasoner,
    questions: Sequence[str],
    answers: Sequence[str],
    blocks: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """The first `POINTS` questions on every checkpoint: `panels` as `over_checkpoints` has them,
    `left_out` with a reason by checkpoint.

    Args:
        models: in the order of training, `reasoner` (the finished one) among them or not.
    """
    config = text_config(unwrap(reasoner.model).config)
    layers = shown_layers(config.num_hidden_layers)
    asked, states, left_out = list(questions[:POINTS]), {}, {}
    for name, loader in models.items():
        reason = None
        try:
            model = loader()
        except ConfigError as error:
            reason = str(error)
        else:
            other = text_config(unwrap(model.model).config)
            sizes = (other.num_hidden_layers, other.hidden_size)
            if sizes != (config.num_hidden_layers, config.hidden_size):
                reason = f"it has {sizes[0]} layers of width {sizes[1]}"
            elif model.encoder.format.memory != reasoner.encoder.format.memory:
                reason = "its blocks are others"
            else:
                states[name] = _states(model, asked, blocks, layers)
        if reason is not None:
            left_out[name] = reason
        progress(len(asked))
    panels = over_checkpoints(states, layers, answers[:POINTS]) if states else []
    return {"panels": panels, "left_out": left_out}


def _states(
    reasoner: Reasoner, questions: Sequence[str], blocks: int, layers: Sequence[int]
) -> np.ndarray:
    """`[N, K, S, D]`: blocks from 1, the shown layers alone."""
    parts = []
    for start in range(0, len(questions), BATCH):
        states_BKLD = block_states(reasoner, questions[start : start + BATCH], blocks)
        parts.append(states_BKLD[:, 1:, list(layers)].numpy())
    return np.concatenate(parts)
