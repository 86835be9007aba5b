"""Where states lie: principal components over blocks, layers and checkpoints, and how many there
are.

Shape legend: N questions, K blocks, S shown layers, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from rim.evaluate.states import States

#: Questions in the pictures, and the share of the variance that is to be explained.
POINTS, SHARE = 120, 0.9
#: Of several checkpoints, which have more points between them, so many questions are kept.
KEPT = 50


def shown_layers(layers: int) -> list[int]:
    """The first, the middle and the last layer."""
    return sorted({1, (layers + 1) // 2, layers})


def geometry(states: States, answers: Sequence[str], chosen_N: np.ndarray) -> dict[str, Any]:
    """Two components over all blocks at three layers, and for every block and layer the number of
    components that explain 90 % of the variance.

    Args:
        answers: of the chosen questions, to colour the points by.
    """
    blocks, layers = range(states.blocks + 1), range(states.layers + 1)
    needed = [[_components(states.at(k, layer)[chosen_N]) for layer in layers] for k in blocks]
    shown = shown_layers(states.layers)
    panels = []
    for layer in shown:
        points = [states.at(block, layer)[chosen_N[:POINTS]] for block in blocks if block]
        fitted = PCA(2, svd_solver="full").fit(np.concatenate(points))
        panels.append(
            {
                "layer": layer,
                "explained": fitted.explained_variance_ratio_.round(4).tolist(),
                "points": [np.round(fitted.transform(own), 3).tolist() for own in points],
            }
        )
    return {
        "components_for_90_percent": needed,
        "pca": panels,
        "answers": list(answers[:POINTS]),
    }


def _components(states_ND: np.ndarray) -> int:
    """0 where all states are the same, as the embeddings of one token are."""
    if float(states_ND.std(0).max()) < 1e-6:
        return 0
    shares = PCA(svd_solver="full").fit(states_ND).explained_variance_ratio_
    return int(np.searchsorted(np.cumsum(shares), SHARE) + 1)


def over_checkpoints(
    states: Mapping[str, np.ndarray], layers: Sequence[int], answers: Sequence[str]
) -> list[dict[str, Any]]:
    """Two components that all checkpoints share, for each shown layer, and what the variance of a
    checkpoint's states goes with.

    Args:
        states: by checkpoint `[N, K, S, D]`, of the same questions and in the order of training.
        answers: of the questions.
    """
    panels = []
    for s, layer in enumerate(layers):
        own = {name: states_NKSD[:, :, s] for name, states_NKSD in states.items()}
        width = next(iter(own.values())).shape[-1]
        everything = np.concatenate([x.reshape(-1, width) for x in own.values()])
        fitted = PCA(2, svd_solver="full").fit(everything)
        for name, states_NKD in own.items():
            count, blocks = states_NKD.shape[:2]
            flat = states_NKD.reshape(-1, width)
            points = fitted.transform(flat).reshape(count, blocks, 2).transpose(1, 0, 2)
            panels.append(
                {
                    "checkpoint": name,
                    "layer": layer,
                    "explained": fitted.explained_variance_ratio_.round(4).tolist(),
                    "points": np.round(points[:, :KEPT], 2).tolist(),
                    "by_block": share_between(flat, list(range(blocks)) * count),
                    "by_answer": share_between(flat, [a for a in answers for _ in range(blocks)]),
                }
            )
    return panels


def share_between(states_ND: np.ndarray, groups: Sequence[Any]) -> float:
    """Share of the variance that lies between the means of groups (eta squared, all directions):
    1 if a state depends on its group alone. Random groups reach about (groups - 1) / (N - 1).
    """
    centred_ND = states_ND - states_ND.mean(0)
    total = float((centred_ND**2).sum())
    if total < 1e-9:
        return 0.0
    names = np.array([str(group) for group in groups])
    between = 0.0
    for name in set(names.tolist()):
        rows = centred_ND[names == name]
        between += len(rows) * float((rows.mean(0) ** 2).sum())
    return round(between / total, 4)
