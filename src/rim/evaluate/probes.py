"""Probes: what can be read off a state linearly, and what a probe would read off anything.

Values: the number after step t, by a ridge classifier for every block and layer. Trust: "the answer
after this block is right", by logistic regression on few problems (256, as in the paper). A probe's
accuracy alone proves little, so each stands beside three others: control labels that depend on the
question's last characters alone (Hewitt and Liang 2019, arXiv 1909.03368; which characters is our
reading), the states of the question's last token (block 0 of every map), and the same places in the
model that the run started from. No problem trains a probe and tests it too.

Shape legend: N questions, D width, C classes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from rim.data.examples import Example

#: A value with more classes than this is probed by its last digit.
MOST_CLASSES = 50
#: Fewer training questions than this are no ground for a probe.
LEAST = 30
TRUST_PROBLEMS = 256
BOOTSTRAPS = 1000
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def value_of(text: str) -> str | None:
    """The number that a step ends in: the last one after its last "=", or of all of it."""
    numbers = _NUMBER.findall(text.rpartition("=")[2]) or _NUMBER.findall(text)
    return numbers[-1].replace(",", "") if numbers else None


@dataclass(frozen=True)
class Target:
    """What a map of probes is about. labels: one a question, None where there is none.
    control: a class as often as any label, which depends on the question's last characters alone.
    """

    name: str
    kind: str
    labels: list[str | None]
    control: list[str | None]


def targets_of(examples: Sequence[Example]) -> list[Target]:
    """The value after each step, and the answer, as far as enough questions have them."""
    most = max((len(example.steps) for example in examples), default=0)
    columns = {
        f"step {t + 1}": [value_of(e.steps[t]) if t < len(e.steps) else None for e in examples]
        for t in range(most)
    } | {"answer": [value_of(e.answer) or e.answer for e in examples]}
    targets = []
    for name, values in columns.items():
        labels, kind = _classes(values)
        if (
            sum(label is not None for label in labels) >= 2 * LEAST
            and len(set(labels) - {None}) > 1
        ):
            targets.append(Target(name, kind, labels, control_labels(examples, labels)))
    return targets


def _classes(values: Sequence[str | None]) -> tuple[list[str | None], str]:
    if len(set(values) - {None}) <= MOST_CLASSES:
        return list(values), "value"
    return [label_of(v, "last digit") for v in values], "last digit"


def label_of(value: str | None, kind: str) -> str | None:
    """A value as a probe of this kind (see `Target`) has it."""
    if value is None or kind == "value":
        return value
    return value.partition(".")[0][-1]


def control_labels(examples: Sequence[Example], labels: Sequence[str | None]) -> list[str | None]:
    """For every question a label drawn, in the labels' own shares, by its last three characters:
    the same ending always has the same label.
    """
    pool = sorted(label for label in labels if label is not None)
    return [
        None if label is None else pool[_hash(example.question.strip()[-3:]) % len(pool)]
        for example, label in zip(examples, labels, strict=True)
    ]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def split(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the training and of the test questions: halves, by the question's own hash, so
    that one asked twice is on one side.
    """
    is_test = np.array([_hash(example.same_question) % 2 == 1 for example in examples], dtype=bool)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def question_hashes(examples: Sequence[Example]) -> np.ndarray:
    """48 bits of each different question's hash, ascending: kept with probes, so that they are not
    scored on what they have seen.
    """
    return np.array(sorted({_hash(example.same_question) for example in examples}), dtype=np.uint64)


def is_untouched(example: Example) -> bool:
    """Half of the test questions choose a block's layer; on the other half, these, nothing was
    trained or chosen. By the question's own hash, so the same in every file.
    """
    return _hash(example.same_question) % 4 == 3


# --- values ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearProbe:
    """Class scores are `(x - mean) / scale @ weights + bias`."""

    mean_D: np.ndarray
    scale_D: np.ndarray
    weights_DC: np.ndarray
    bias_C: np.ndarray
    classes: tuple[str, ...]

    def scores(self, states_ND: np.ndarray) -> np.ndarray:
        scaled_ND = (states_ND - self.mean_D) / self.scale_D
        return scaled_ND @ self.weights_DC + self.bias_C

    def predict(self, states_ND: np.ndarray) -> list[str]:
        scores_NC = self.scores(states_ND)
        if scores_NC.shape[1] == 1:
            return [self.classes[int(s > 0)] for s in scores_NC[:, 0]]
        return [self.classes[i] for i in scores_NC.argmax(1)]


def fit_value_probe(states_ND: np.ndarray, labels: Sequence[str]) -> LinearProbe:
    """Ridge regression to the classes' indicators; the penalty grows with the questions."""
    scaler = StandardScaler().fit(states_ND)
    model = RidgeClassifier(alpha=0.1 * len(labels))
    model.fit(scaler.transform(states_ND), list(labels))
    mean_D, scale_D = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
    return LinearProbe(
        mean_D,
        scale_D,
        np.atleast_2d(model.coef_).T,
        np.atleast_1d(model.intercept_),
        tuple(str(c) for c in model.classes_),
    )


def try_value_probe(
    states_ND: np.ndarray,
    labels: Sequence[str | None],
    train_N: np.ndarray,
    test_N: np.ndarray,
) -> tuple[dict[int, bool], LinearProbe] | None:
    """Right or wrong on every test question that has a label, and the probe; None where there are
    too few questions.
    """
    train = [i for i in train_N if labels[i] is not None]
    test = [i for i in test_N if labels[i] is not None]
    chosen = [str(labels[i]) for i in train]
    if len(train) < LEAST or not test or len(set(chosen)) < 2:
        return None
    probe = fit_value_probe(states_ND[train], chosen)
    predicted = probe.predict(states_ND[test])
    return {int(i): p == labels[i] for p, i in zip(predicted, test, strict=True)}, probe


def majority(labels: Sequence[str | None], train_N: np.ndarray, test_N: np.ndarray) -> float:
    """Return the accuracy on the test of always saying the commonest training label."""
    known = [labels[i] for i in train_N if labels[i] is not None]
    said = Counter(known).most_common(1)[0][0] if known else None
    test = [labels[i] for i in test_N if labels[i] is not None]
    return sum(label == said for label in test) / len(test) if test else 0.0


# --- trust ----------------------------------------------------------------------------------------


def fit_trust_probe(states_ND: np.ndarray, right_N: np.ndarray) -> LinearProbe | None:
    """None where the training questions are all right, or all wrong, but for a handful."""
    if min(right_N.sum(), (~right_N).sum()) < 5:
        return None
    scaler = StandardScaler().fit(states_ND)
    model = LogisticRegression(C=0.05, max_iter=500).fit(scaler.transform(states_ND), right_N)
    mean_D, scale_D = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
    return LinearProbe(mean_D, scale_D, model.coef_.T, model.intercept_, ("wrong", "right"))


def ranking(
    scores_N: np.ndarray, right_N: np.ndarray, *, bootstrap: bool = False
) -> dict[str, Any]:
    """AUROC and AUPRC (of "wrong", the rarer class as a rule), with 95 % bootstrap intervals over
    questions; empty where one class is missing.
    """
    wrong_N = ~right_N
    if wrong_N.all() or right_N.all():
        return {}
    found: dict[str, Any] = {
        "auroc": float(roc_auc_score(wrong_N, -scores_N)),
        "auprc_wrong": float(average_precision_score(wrong_N, -scores_N)),
        "share_wrong": float(wrong_N.mean()),
    }
    if bootstrap:
        rng = np.random.default_rng(0)
        drawn = []
        for _ in range(BOOTSTRAPS):
            pick = rng.integers(0, len(right_N), len(right_N))
            if 0 < wrong_N[pick].sum() < len(pick):
                pair = wrong_N[pick], -scores_N[pick]
                drawn.append((roc_auc_score(*pair), average_precision_score(*pair)))
        low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
        found |= {"auroc_interval": [float(low[0]), float(high[0])]}
        found |= {"auprc_interval": [float(low[1]), float(high[1])]}
    return found
