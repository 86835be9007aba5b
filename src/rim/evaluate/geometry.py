"""Where states lie: principal components over blocks, at some layers, and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from rim.evaluate.states import States

#: Questions in the pictures, and the share of the variance that is to be explained.
POINTS, SHARE = 120, 0.9


def geometry(states: States, answers: Sequence[str], chosen_N: np.ndarray) -> dict[str, Any]:
    """Two components over all blocks at three layers, and for every block and layer the number of
    components that explain 90 % of the variance.

    Args:
        answers: of the chosen questions, to colour the points by.
    """
    blocks, layers = range(states.blocks + 1), range(states.layers + 1)
    needed = [[_components(states.at(k, layer)[chosen_N]) for layer in layers] for k in blocks]
    shown = sorted({1, (states.layers + 1) // 2, states.layers})
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
