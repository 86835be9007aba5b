"""`rim analyze`: states, probes, geometry and attention of a trained model, as one record.

Shape legend: N questions, K blocks (index 0: the question's last token), L layers, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rim.data.examples import DataError, Example
from rim.data.sources import data_hash
from rim.evaluate.accuracy import score
from rim.evaluate.attention import attention_map
from rim.evaluate.geometry import POINTS, geometry
from rim.evaluate.over_training import Loader, beside
from rim.evaluate.probe_files import VALUES_FILE, Placed, write_probes
from rim.evaluate.probes import (
    TRUST_PROBLEMS,
    LinearProbe,
    Target,
    control_labels,
    fit_trust_probe,
    is_untouched,
    majority,
    ranking,
    split,
    targets_of,
    try_value_probe,
)
from rim.evaluate.selectors import PROBE_FILE, BlockAnswer
from rim.evaluate.states import States, collect_states
from rim.infer.reasoner import Reasoner

#: Questions whose attention is looked at, and those that are walked block by block in a report.
ATTENTION_QUESTIONS, WALKED = 64, 12
#: Fewer questions than this are split into too little.
LEAST_QUESTIONS = 100

Progress = Callable[[int], None]
Map = list[list[float | None]]


def work(questions: int, blocks: int, layers: int, models: int, checkpoints: int = 0) -> int:
    """How much `analyze` tells its `progress` in all: questions answered and passed, and places
    probed; about, for the checkpoints' questions are some of the test half.
    """
    places = (blocks + 1) * (layers + 1) * models
    looked = min(questions, ATTENTION_QUESTIONS) + checkpoints * min(questions // 2, POINTS)
    return questions * (1 + models) + looked + places


def analyze(
    reasoner: Reasoner,
    examples: Sequence[Example],
    folder: Path,
    run: Path,
    *,
    blocks: int,
    model: str,
    base: Reasoner | None = None,
    checkpoints: Mapping[str, Loader] | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 64,
    progress: Progress = lambda done: None,
) -> dict[str, Any]:
    """Look into a model with blocks; leaves states in `folder` and probes in `run`.

    Args:
        model: the model's fingerprint. base: what it was trained from, to compare with.
        checkpoints: other models, to show its states beside theirs; in the order of training.

    Raises:
        DataError: too few questions.
    """
    if len(examples) < LEAST_QUESTIONS:
        raise DataError(f"{len(examples)} questions are too few to probe; give {LEAST_QUESTIONS}")
    questions = [example.question for example in examples]
    result = score(
        reasoner,
        examples,
        blocks=blocks,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    models = {"trained": reasoner} | ({"base": base} if base is not None else {})
    states = {
        name: collect_states(
            one,
            questions,
            folder / name,
            blocks=blocks,
            source=f"{model}/{name}",
            batch_size=batch_size,
            progress=progress,
        )
        for name, one in models.items()
    }
    right_NK = np.array([[bool(a.right) for a in row] for row in result.readouts])
    values, trust, probes = _probe(examples, states, right_NK, progress)
    own_NK = np.array([[a.weight for a in row] for row in result.readouts])
    _, test_N = split(examples)
    trust["own_probability"] = ranking(own_NK[test_N, -1], right_NK[test_N, -1], bootstrap=True)
    about = {"model": model, "blocks": blocks, "data": data_hash(examples)}
    if probes["values"]:
        write_probes(probes["values"], run / VALUES_FILE, about, examples)
    if probes["trust"]:
        write_probes(probes["trust"], run / PROBE_FILE, about, examples)
    golds = [examples[i].answer for i in test_N]
    asked = [questions[i] for i in test_N]
    shown = dict(checkpoints or {})
    if base is not None:
        shown = {"before training": lambda: base} | shown
    shown["finished"] = lambda: reasoner
    return {
        "blocks": blocks,
        "layers": states["trained"].layers,
        "questions": len(examples),
        "test_questions": len(test_N),
        "accuracy": result.summary["final"],
        "has_base": base is not None,
        "values": values,
        "trust": trust,
        "geometry": geometry(states["trained"], golds, test_N),
        "checkpoints": beside(shown, reasoner, asked, golds, blocks, progress),
        "attention": attention_map(
            reasoner, questions[:ATTENTION_QUESTIONS], blocks, progress=progress
        ),
        "examples": [
            _walked(examples[i], result.readouts[i], probes["values"], states["trained"], int(i))
            for i in _shown(test_N, right_NK)
        ],
    }


def _shown(test_N: np.ndarray, right_NK: np.ndarray) -> list[int]:
    """Questions to walk through: those whose blocks disagree first, then the others in order."""
    changing = [i for i in test_N if 0 < right_NK[i].sum() < right_NK.shape[1]]
    steady = [i for i in test_N if i not in set(changing)]
    half = WALKED // 2
    return [int(i) for i in [*changing[:half], *steady][:WALKED]]


def _walked(
    example: Example, row: Sequence[BlockAnswer], probes: Sequence[Placed], states: States, i: int
) -> dict[str, Any]:
    """One question, a line a block: the answer, its probability, and what probes read there."""
    lines = []
    for answer in row:
        own = [placed for placed in probes if placed.block == answer.block]
        read = {
            p.name + (", last digit" if p.kind == "last digit" else ""): p.probe.predict(
                states.at(p.block, p.layer)[i : i + 1]
            )[0]
            for p in own
        }
        fields = {key: getattr(answer, key) for key in ("block", "answer", "probability", "right")}
        lines.append(fields | {"probed": read})
    told = {"question": example.question, "answer": example.answer, "steps": list(example.steps)}
    return told | {"blocks": lines}


# --- probes at every place ------------------------------------------------------------------------


def _probe(
    examples: Sequence[Example],
    states: dict[str, States],
    right_NK: np.ndarray,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[Placed]]]:
    train_N, test_N = split(examples)
    targets = targets_of(examples)
    shape = states["trained"].blocks + 1, states["trained"].layers + 1
    maps: dict[tuple[str, str], Map] = {}
    best: dict[tuple[int, str], Placed] = {}
    chosen: dict[tuple[int, str], float] = {}
    untouched = {i for i, example in enumerate(examples) if is_untouched(example)}
    trust = _TrustProbes(examples, right_NK, train_N, test_N)
    for name, own in states.items():
        for block in range(shape[0]):
            for layer in range(shape[1]):
                states_ND = own.at(block, layer)
                for target in targets:
                    kinds = {name: target.labels}
                    if name == "trained":
                        kinds["control"] = target.control
                    for kind, labels in kinds.items():
                        found = try_value_probe(states_ND, labels, train_N, test_N)
                        rows = maps.setdefault((target.name, kind), _empty(shape))
                        if found is None:
                            continue
                        hits, probe = found
                        rows[block][layer] = round(float(np.mean(list(hits.values()))), 4)
                        if kind == "trained" and block:
                            _keep_best(best, chosen, target, block, layer, hits, probe, untouched)
                trust.look(name, block, states_ND)
                progress(1)
    values = {
        target.name: {
            "kind": target.kind,
            "train": sum(target.labels[i] is not None for i in train_N),
            "test": sum(target.labels[i] is not None for i in test_N),
            "majority": round(majority(target.labels, train_N, test_N), 4),
            **{kind: maps[key, kind] for key, kind in maps if key == target.name},
        }
        for target in targets
    }
    record, pooled = trust.result(states["trained"])
    return values, record, {"values": list(best.values()), "trust": pooled}


def _empty(shape: tuple[int, int]) -> Map:
    return [[None] * shape[1] for _ in range(shape[0])]


def _keep_best(
    best: dict[tuple[int, str], Placed],
    chosen: dict[tuple[int, str], float],
    target: Target,
    block: int,
    layer: int,
    hits: dict[int, bool],
    probe: LinearProbe,
    untouched: set[int],
) -> None:
    """The best layer of each block is chosen on half of the test questions; the accuracy it is said
    to have is that on the other half, the untouched ones.
    """
    choosing = [hit for i, hit in hits.items() if i not in untouched]
    telling = [hit for i, hit in hits.items() if i in untouched]
    key, share = (block, target.name), float(np.mean(choosing or telling))
    if share > chosen.get(key, -1.0):
        chosen[key] = share
        said = round(float(np.mean(telling or choosing)), 4)
        best[key] = Placed(probe, block, layer, target.name, said, target.kind)


class _TrustProbes:
    """Is the answer after this block right? Maps of AUROC, and one probe for all blocks."""

    def __init__(
        self,
        examples: Sequence[Example],
        right_NK: np.ndarray,
        train_N: np.ndarray,
        test_N: np.ndarray,
    ):
        self.right_NK, self.test_N = right_NK, test_N
        self.train_N = train_N[:TRUST_PROBLEMS]
        rest = train_N[TRUST_PROBLEMS:]
        #: What the layer is chosen on; the training problems where there are no others.
        self.choose_N = rest if len(rest) >= TRUST_PROBLEMS // 4 else self.train_N
        marks = [str(int(right)) for right in right_NK[:, -1]]
        drawn = control_labels(examples, marks)
        self.control_N = np.array([label == "1" for label in drawn])
        self.maps: dict[str, Map] = {}

    def look(self, name: str, block: int, states_ND: np.ndarray) -> None:
        """Layer after layer. Row 0, the question's own state, foretells the answer after the last
        block.
        """
        kinds = {name: self.right_NK[:, block - 1]}
        if name == "trained":
            kinds["control"] = self.control_N
        for kind, right_N in kinds.items():
            blocks = self.right_NK.shape[1] + 1
            rows = self.maps.setdefault(kind, [[] for _ in range(blocks)])
            found = _auroc(states_ND, right_N, self.train_N, self.test_N)
            rows[block].append(None if found is None else round(found, 4))

    def result(self, states: States) -> tuple[dict[str, Any], list[Placed]]:
        record: dict[str, Any] = {
            "train": len(self.train_N),
            "test": len(self.test_N),
            "maps": self.maps,
            "wrong_by_block": (1 - self.right_NK[self.test_N].mean(0)).round(4).tolist(),
        }
        found: tuple[float, int, LinearProbe] | None = None
        for layer in range(states.layers + 1):
            by_block = [states.at(block, layer) for block in range(1, states.blocks + 1)]
            train = np.concatenate([own[self.train_N] for own in by_block])
            probe = fit_trust_probe(train, self.right_NK[self.train_N].T.reshape(-1))
            if probe is None:
                break
            scores = np.concatenate([probe.scores(own[self.choose_N])[:, 0] for own in by_block])
            marks = self.right_NK[self.choose_N].T.reshape(-1)
            chosen = ranking(scores, marks).get("auroc", 0.0)
            if found is None or chosen > found[0]:
                found = chosen, layer, probe
        if found is None:
            return record, []
        _, layer, probe = found
        last = probe.scores(states.at(states.blocks, layer)[self.test_N])[:, 0]
        ranks = ranking(last, self.right_NK[self.test_N, -1], bootstrap=True)
        record["probe"] = ranks | {"layer": layer}
        return record, [Placed(probe, 0, layer, "right", ranks.get("auroc", 0.0))]


def _auroc(
    states_ND: np.ndarray, right_N: np.ndarray, train_N: np.ndarray, test_N: np.ndarray
) -> float | None:
    probe = fit_trust_probe(states_ND[train_N], right_N[train_N])
    if probe is None:
        return None
    return ranking(probe.scores(states_ND[test_N])[:, 0], right_N[test_N]).get("auroc")
