"""Which answer to trust: one prefill reads K answers, and a selector picks one of them.

A selector looks at the answers and their probabilities alone, never at the gold answer, so it can
be deployed; the oracle (any block) stands beside it as what a perfect selector would reach. Every
choice comes with a confidence between 0 and 1. Below a threshold the question is better left
unanswered (abstention) or given to a model that writes its steps (fall-back). Thresholds come from
validation questions (`calibrate`) and are kept with the run.

Nothing here needs torch. Which selectors there are is our choice, not the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rim.config import ConfigError
from rim.infer.answers import same_answer
from rim.models.folder import SELECTORS_FILE, TRUST_PROBE_FILE
from rim.results import environment, read_json, write_json

#: Beside the run's model; written by `rim eval --select ... --calibrate`.
FILE = SELECTORS_FILE
#: Beside it: the probe for "this read-out is right", written by `rim analyze`.
PROBE_FILE = TRUST_PROBE_FILE
#: Thresholds of a run that was never calibrated.
DEFAULTS: dict[str, Any] = {"early": 0.9, "abstain": {}, "target": None}
#: How much accuracy on validation questions early exit may lose against the last block.
TOLERANCE = 0.005


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
        # Of equal answers the last that counts: one that was cut off may be the beginning of more.
        chosen = next((a for a in reversed(best) if weigh(a) > 0), best[-1])
        return Choice(chosen, share, row[-1].block)

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


def _calibrations(run: Path) -> dict[str, Any]:
    """Read a run's calibrations, by number of blocks."""
    file = run / FILE
    if not file.exists():
        return {}
    try:
        found = read_json(file)
        for kept in found.values():
            if not isinstance(kept["early"], float | int) or not isinstance(kept["abstain"], dict):
                raise TypeError("thresholds are numbers")
            kept["calibrated_on"]["questions"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is broken ({error}); remove it and calibrate again") from None
    return found


def read_thresholds(run: Path, blocks: int) -> dict[str, Any]:
    """What `calibrate` found for a run asked with so many blocks, or the defaults.

    Raises:
        ConfigError: the file is broken.
    """
    kept = _calibrations(run).get(str(blocks), DEFAULTS)
    return {key: kept[key] for key in DEFAULTS}


def calibrated_on(run: Path, blocks: int) -> dict[str, Any]:
    """Name, hash and number of the questions that these thresholds come from; empty without."""
    return _calibrations(run).get(str(blocks), {}).get("calibrated_on", {})


def keep_thresholds(run: Path, blocks: int, found: dict[str, Any], origin: dict[str, Any]) -> None:
    """Write what `calibrate` found beside that for other numbers of blocks, and that for other
    selectors from the same questions and settings.
    """
    kept = _calibrations(run)
    before = kept.get(str(blocks), {})
    if before.get("calibrated_on") == origin and before.get("target") == found["target"]:
        found = found | {"abstain": before["abstain"] | found["abstain"]}
    kept[str(blocks)] = found | {"calibrated_on": origin, "environment": environment()}
    write_json(run / FILE, kept)


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


def is_sure(choice: Choice, name: str, thresholds: Mapping[str, Any]) -> bool:
    """Whether a selector's choice is given as an answer: always, where it was never calibrated;
    never, where calibration found no confidence that reaches the target.
    """
    if name not in thresholds["abstain"]:
        return True
    threshold = thresholds["abstain"][name]
    return threshold is not None and choice.confidence >= threshold


def check_calibrated(names: Sequence[str], run: Path, blocks: int) -> None:
    """
    Raises:
        ConfigError: a fall-back is asked where a selector is not sure, and one has no threshold.
    """
    thresholds = read_thresholds(run, blocks)
    missing = [name for name in names if name not in thresholds["abstain"]]
    if missing:
        raise ConfigError(
            "--fallback is asked below a selector's threshold, and this run has none for "
            f"{', '.join(missing)} with {blocks} blocks: `rim eval RUN VALIDATION --blocks "
            f"{blocks} --select all --calibrate` finds it"
        )


def as_record(choice: Choice, name: str, thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """A choice as `rim ask --select` prints it. threshold: None without calibration, and where
    calibration found none.
    """
    return {
        "selector": name,
        "confidence": choice.confidence,
        "blocks_used": choice.blocks_used,
        "threshold": thresholds["abstain"].get(name),
        "abstains": not is_sure(choice, name, thresholds),
        **{key: value for key, value in asdict(choice.answer).items() if key != "right"},
    }
