"""Probes kept with a run: what `rim ask --select probe` and `rim explain` read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rim.config import ConfigError
from rim.data.examples import Example
from rim.evaluate.probes import LinearProbe, question_hashes
from rim.evaluate.selectors import PROBE_FILE
from rim.evaluate.states import block_states
from rim.infer.reasoner import Reasoner
from rim.models.folder import VALUE_PROBES_FILE

VALUES_FILE = VALUE_PROBES_FILE
BATCH = 32
ARRAYS = ("mean_D", "scale_D", "weights_DC", "bias_C")


@dataclass(frozen=True)
class Placed:
    """A probe, the block and layer that it reads (block 0 here: any block), what it is about, its
    accuracy on test questions, and the kind of its labels (`rim.evaluate.probes.Target`).
    """

    probe: LinearProbe
    block: int
    layer: int
    name: str
    accuracy: float
    kind: str = "value"


def write_probes(
    probes: Sequence[Placed], file: Path, about: Mapping[str, Any], seen: Sequence[Example]
) -> None:
    """All probes of one file, which another replaces in one move.

    Args:
        seen: the questions that trained and chose them, whose hashes are kept.
    """
    tensors: dict[str, np.ndarray] = {"seen": question_hashes(seen)}
    described = []
    for number, placed in enumerate(probes):
        for field in ARRAYS:
            array = np.ascontiguousarray(getattr(placed.probe, field), dtype=np.float32)
            tensors[f"{number}.{field}"] = array
        places = {
            key: getattr(placed, key) for key in ("block", "layer", "name", "accuracy", "kind")
        }
        described.append(places | {"classes": placed.probe.classes})
    partial = file.with_suffix(".partial")
    save_file(tensors, partial, {"probes": json.dumps(described), "about": json.dumps(dict(about))})
    partial.replace(file)


def read_probes(file: Path, model: str, unseen: Sequence[Example] | None = None) -> list[Placed]:
    """What `write_probes` wrote.

    Args:
        model: fingerprint of the model that they are used on.
        unseen: questions that the probes are to be scored on.

    Raises:
        ConfigError: the file is broken, its probes read another model, or some of these questions
            trained or chose them.
    """
    try:
        with safe_open(file, framework="np") as tensors:
            told = tensors.metadata() or {}
            about, described = json.loads(told["about"]), json.loads(told["probes"])
            probes = []
            seen = np.zeros(0, np.uint64) if unseen is None else tensors.get_tensor("seen")
            for number, entry in enumerate(described):
                arrays = {name: tensors.get_tensor(f"{number}.{name}") for name in ARRAYS}
                probe = LinearProbe(**arrays, classes=tuple(entry.pop("classes")))
                probes.append(Placed(probe, **entry))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{file} is broken ({error}); run `rim analyze` again") from None
    if about["model"] != model:
        raise ConfigError(
            f"{file} belongs to another model; run `rim analyze RUN DATA --overwrite`"
        )
    asked = question_hashes(unseen or ())
    if known := len(np.intersect1d(asked, seen)):
        raise ConfigError(
            f"the probes of {file} were trained and chosen on {known:,} of these {len(asked):,} "
            "questions: score them on others"
        )
    return probes


def read_trust_probe(run: Path, model: str, unseen: Sequence[Example] | None = None) -> Placed:
    return read_probes(run / PROBE_FILE, model, unseen)[0]


def trust_scores(
    placed: Placed, reasoner: Reasoner, questions: Sequence[str], *, blocks: int
) -> list[list[float]]:
    """For every question, and the answer after each block, the probability that it is right. One
    more pass over the prompts, without read-outs.
    """
    scores: list[list[float]] = []
    for start in range(0, len(questions), BATCH):
        states_BKLD = block_states(reasoner, questions[start : start + BATCH], blocks).numpy()
        for states_KLD in states_BKLD:
            logits_K = placed.probe.scores(states_KLD[1:, placed.layer])[:, 0]
            scores.append((1 / (1 + np.exp(-logits_K))).tolist())
    return scores
