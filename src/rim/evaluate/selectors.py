"""Which answer to trust: one prefill reads K answers, and a selector picks one of them.

A selector looks at the answers and their probabilities alone, never at the gold answer, so it can
be deployed; the oracle (any block) stands beside it as what a perfect selector would reach. Every
choice comes with a confidence between 0 and 1. Below a threshold the question is better left
unanswered (abstention) or given to a model that writes its steps (fall-back). Thresholds come from
validation questions (`calibrate`) and are kept with the run.

Nothing here needs torch. Which selectors there are is our choice, not the paper's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rim.config import ConfigError
from rim.evaluate.statistics import wilson_interval
from rim.infer.answers import same_answer

#: Beside the run's model; written by `rim eval --select ... --calibrate`.
FILE = "selectors.json"
#: Beside it: the probe for "this read-out is right", written by `rim analyze`.
PROBE_FILE = "trust_probe.safetensors"
#: Thresholds of a run that was never calibrated.
DEFAULTS: dict[str, Any] = {"early": 0.9, "abstain": {}, "target": None}
#: How much accuracy on validation questions early exit may lose against the last block.
TOLERANCE = 0.005
BINS = 10


@dataclass(frozen=True)
class BlockAnswer:
    """The answer after one block. probability: of its whole text. right: None where nobody knows.
    score: a probe's probability that it is right, where there is a probe.
    """

    block: int
    answer: str
    probability: float
    finished: bool = True
    right: bool | None = None
    score: float | None = None

    @property
    def weight(self) -> float:
        """Its probability; nothing for an answer that was cut off or says nothing."""
        return self.probability if self.finished and self.answer else 0.0


@dataclass(frozen=True)
class Choice:
    """The answer that a selector takes, how sure it is, and after how many blocks it knew."""

    answer: BlockAnswer
    confidence: float
    blocks_used: int


Row = Sequence[BlockAnswer]
Selector = Callable[[Row, Mapping[str, Any]], Choice]


def _final(row: Row, _: Mapping[str, Any]) -> Choice:
    return Choice(row[-1], row[-1].weight, row[-1].block)


def _first(row: Row, _: Mapping[str, Any]) -> Choice:
    return Choice(row[0], row[0].weight, row[0].block)


def _highest(row: Row, _: Mapping[str, Any]) -> Choice:
    best = max(row, key=lambda a: (a.weight, a.block))
    return Choice(best, best.weight, row[-1].block)


def _early(row: Row, thresholds: Mapping[str, Any]) -> Choice:
    found = next((a for a in row if a.weight >= thresholds["early"]), row[-1])
    return Choice(found, found.weight, found.block)


def _probe(row: Row, _: Mapping[str, Any]) -> Choice:
    if any(answer.score is None for answer in row):
        raise ConfigError("this run has no probe; train one with `rim analyze RUN DATA`")
    best = max(row, key=lambda a: (a.score or 0.0, a.block))
    return Choice(best, best.score or 0.0, row[-1].block)


def _vote(weigh: Callable[[BlockAnswer], float]) -> Selector:
    """The answer that most blocks give; of equals the one given last. Its confidence is the share
    of the votes (as equals are: a cut-off answer has none).
    """

    def select(row: Row, _: Mapping[str, Any]) -> Choice:
        groups: list[list[BlockAnswer]] = []
        for answer in row:
            like = next((g for g in groups if same_answer(answer.answer, g[0].answer)), None)
            if like is None:
                groups.append([answer])
            else:
                like.append(answer)
        best = max(groups, key=lambda g: (sum(map(weigh, g)), g[-1].block))
        total = sum(map(weigh, row))
        share = sum(map(weigh, best)) / total if total else 0.0
        return Choice(best[-1], share, row[-1].block)

    return select


SELECTORS: dict[str, Selector] = {
    "final": _final,
    "first": _first,
    "highest": _highest,
    "vote": _vote(lambda a: float(a.weight > 0)),
    "weighted_vote": _vote(lambda a: a.weight),
    "early": _early,
    "probe": _probe,
}
#: Blocks read by a selector of K: these two read one answer, the others need all.
READS_ONE = ("final", "first")


def has_probe(run: Path) -> bool:
    """Whether `rim analyze` has left a probe with a run."""
    return (run / PROBE_FILE).exists()


def choose_names(text: str, *, has_probe: bool) -> list[str]:
    """Selectors as people name them: "all" (those that the run can have), or several by commas.

    Raises:
        ConfigError: there is no such selector.
    """
    if text.strip() == "all":
        return [name for name in SELECTORS if has_probe or name != "probe"]
    names = list(dict.fromkeys(piece.strip() for piece in text.split(",")))
    for name in names:
        if name not in SELECTORS:
            raise ConfigError(
                f"--select: there is no selector {name[:40]!r}; there are {', '.join(SELECTORS)}, "
                "all"
            )
        if name == "probe" and not has_probe:
            raise ConfigError(
                "--select probe: this run has no probe yet; `rim analyze RUN DATA` trains one"
            )
    return names


def read_thresholds(run: Path) -> dict[str, Any]:
    """What `calibrate` found for a run, or the defaults.

    Raises:
        ConfigError: the file is broken.
    """
    file = run / FILE
    if not file.exists():
        return dict(DEFAULTS)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        thresholds = {key: found[key] for key in DEFAULTS}
        if not isinstance(thresholds["early"], float | int) or not isinstance(
            thresholds["abstain"], dict
        ):
            raise TypeError("thresholds are numbers")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is broken ({error}); remove it and calibrate again") from None
    return thresholds


def calibrate(rows: Sequence[Row], names: Sequence[str], target: float) -> dict[str, Any]:
    """Thresholds from validation questions.

    early: the lowest threshold that loses no more than `TOLERANCE` of the last block's accuracy.
    abstain: for every selector the lowest confidence from which on answers are right as often as
    `target` says; None where even the surest are not.
    """
    candidates = sorted({0.0, 1.0, *(round(a.weight, 4) for row in rows for a in row)})
    if len(candidates) > 200:
        candidates = [candidates[i * (len(candidates) - 1) // 199] for i in range(200)]
    wanted = fmean(bool(row[-1].right) for row in rows) - TOLERANCE
    early = next(
        (
            t
            for t in candidates
            if fmean(bool(_early(row, {"early": t}).answer.right) for row in rows) >= wanted
        ),
        1.0,
    )
    thresholds: dict[str, Any] = {"early": early, "abstain": {}, "target": target}
    for name in names:
        choices = [SELECTORS[name](row, thresholds) for row in rows]
        thresholds["abstain"][name] = _lowest_confidence(choices, target)
    return thresholds


def _lowest_confidence(choices: Sequence[Choice], target: float) -> float | None:
    """Answers of equal confidence stand or fall together."""
    order = sorted(choices, key=lambda c: -c.confidence)
    found, right = None, 0
    for count, choice in enumerate(order, 1):
        right += bool(choice.answer.right)
        ends = count == len(order) or order[count].confidence < choice.confidence
        if ends and right / count >= target:
            found = choice.confidence
    return found


# --- how good a selector is -----------------------------------------------------------------------


def compare_selectors(
    rows: Sequence[Row],
    names: Sequence[str],
    thresholds: Mapping[str, Any],
    fallback_right: Sequence[bool] | None = None,
) -> dict[str, Any]:
    """Every selector on the same questions, and the oracle.

    Args:
        fallback_right: for every question whether the fall-back answers it rightly.
    """
    return {
        "oracle": _share([any(bool(a.right) for a in row) for row in rows]),
        "thresholds": dict(thresholds),
        "selectors": {
            name: _measure(name, [SELECTORS[name](row, thresholds) for row in rows], thresholds)
            | _with_fallback(
                [SELECTORS[name](row, thresholds) for row in rows],
                thresholds["abstain"].get(name),
                fallback_right,
            )
            for name in names
        },
    }


def _measure(name: str, choices: Sequence[Choice], thresholds: Mapping[str, Any]) -> dict[str, Any]:
    right = [bool(choice.answer.right) for choice in choices]
    confidence = [choice.confidence for choice in choices]
    curve = risk_coverage(confidence, right)
    measured: dict[str, Any] = _share(right) | {
        "blocks_used": fmean(choice.blocks_used for choice in choices),
        "ece": calibration_error(confidence, right),
        "bins": calibration_bins(confidence, right),
        "risk_coverage": curve,
        "mean_risk": fmean(point["risk"] for point in curve),
    }
    if name in thresholds["abstain"]:
        threshold = thresholds["abstain"][name]
        kept = [r for r, c in zip(right, confidence, strict=True) if _answers(c, threshold)]
        measured["abstain"] = _share(kept) | {
            "threshold": threshold,
            "coverage": len(kept) / len(right),
        }
    return measured


def _answers(confidence: float, threshold: float | None) -> bool:
    return threshold is not None and confidence >= threshold


def _with_fallback(
    choices: Sequence[Choice], threshold: float | None, fallback_right: Sequence[bool] | None
) -> dict[str, Any]:
    if fallback_right is None:
        return {}
    asked = [not _answers(choice.confidence, threshold) for choice in choices]
    right = [
        other if again else bool(choice.answer.right)
        for choice, again, other in zip(choices, asked, fallback_right, strict=True)
    ]
    return {"fallback": _share(right) | {"asked_again": fmean(asked)}}


def _share(right: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson_interval(sum(right), len(right))
    share = sum(right) / len(right) if right else 0.0
    return {"right": sum(right), "total": len(right), "accuracy": share, "low": low, "high": high}


def calibration_bins(confidence: Sequence[float], right: Sequence[bool]) -> list[dict[str, Any]]:
    """Ten bins of equal width; those with answers: how sure they are and how often right."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for sure, is_right in zip(confidence, right, strict=True):
        bins[min(BINS - 1, int(sure * BINS))].append((sure, is_right))
    return [
        {
            "confidence": fmean(c for c, _ in own),
            "accuracy": fmean(r for _, r in own),
            "n": len(own),
        }
        for own in bins
        if own
    ]


def calibration_error(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599): the gap between confidence
    and accuracy, averaged over the answers of ten bins.
    """
    bins = calibration_bins(confidence, right)
    return math.fsum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / len(right)


def risk_coverage(
    confidence: Sequence[float], right: Sequence[bool], points: int = 20
) -> list[dict[str, float]]:
    """Share of wrong answers among the surest 5, 10 ... 100 % (Geifman and El-Yaniv 2017, arXiv
    1705.08500). Among equals in confidence the share is that of all of them.
    """
    order = sorted(zip(confidence, right, strict=True), key=lambda pair: -pair[0])
    groups: dict[float, list[bool]] = {}
    for sure, is_right in order:
        groups.setdefault(sure, []).append(is_right)
    wrong: list[float] = []  # expected number of wrong answers among the first n
    for own in groups.values():
        each = 1 - fmean(own)
        before = wrong[-1] if wrong else 0.0
        wrong += [before + each * i for i in range(1, len(own) + 1)]
    total = len(order)
    counts = sorted({max(1, round(total * i / points)) for i in range(1, points + 1)})
    return [{"coverage": n / total, "risk": wrong[n - 1] / n} for n in counts]


def as_record(choice: Choice, name: str, threshold: float | None) -> dict[str, Any]:
    """A choice as `rim ask --select` prints it."""
    return {
        "selector": name,
        "confidence": choice.confidence,
        "blocks_used": choice.blocks_used,
        "threshold": threshold,
        "abstains": threshold is not None and choice.confidence < threshold,
        **{key: value for key, value in asdict(choice.answer).items() if key != "right"},
    }
