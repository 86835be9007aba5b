"""What a report is made of: run folders and result JSONs, told apart by what is in them.

Nothing is taken for granted. A part that is not there stays empty, a file that cannot be read is
named in `problems`, and the page says both.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rim.report.curves import Curves, read_curves
from rim.report.text import json_lines


@dataclass
class Run:
    """A run folder. `results` are its JSONs by kind, newest last; `label` tells runs of one name
    apart.
    """

    name: str
    path: Path
    label: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    curves: Curves = ({}, [])
    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    # Wrong answers by the `id` of their evaluation.
    wrong: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.label = self.label or self.name

    def of(self, kind: str) -> list[dict[str, Any]]:
        return self.results.get(kind, [])


@dataclass
class Material:
    """All that was found."""

    runs: list[Run] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    demos: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def gather(paths: Iterable[Path]) -> Material:
    """Read run folders, folders of runs (the demo's) and result JSONs."""
    material = Material()
    loose: dict[str, Run] = {}
    for path in paths:
        if path.is_dir():
            for folder in _run_folders(path):
                material.runs.append(_read_run(folder, material.problems))
            for file in sorted(path.glob("*.json")):
                if path not in _run_folders(path):
                    _add_file(file, material, loose)
        else:
            _add_file(path, material, loose)
    material.runs += [run for run in loose.values() if run.results]
    names = [run.name for run in material.runs]
    for run in material.runs:
        if names.count(run.name) > 1 and run.path.is_dir():
            run.label = f"{run.path.resolve().parent.name}/{run.name}"
    return material


def _run_folders(path: Path) -> list[Path]:
    if any((path / file).exists() for file in ("config.yaml", "rim.json", "model/rim.json")):
        return [path]
    return sorted(p.parent for p in path.glob("*/config.yaml"))


def kind_of(content: Any) -> str | None:
    """comparison, demo, controls, protocol, protocols (of several runs), faithfulness, analysis or
    evaluation; None for anything else.
    """
    if not isinstance(content, dict):
        return None
    for kind, keys in {
        "comparison": ("tasks", "reference"),
        "demo": ("methods", "seconds"),
        "controls": ("controls", "verdicts"),
        "protocols": ("protocol", "runs"),
        "protocol": ("protocol", "task", "data"),
        "faithfulness": ("faithfulness", "data"),
        "analysis": ("analysis", "data"),
        "evaluation": ("summary", "data"),
    }.items():
        if all(key in content for key in keys):
            return kind
    return None


def _add_file(file: Path, material: Material, loose: dict[str, Run]) -> None:
    content = _read_json(file, material.problems)
    kind = kind_of(content)
    if kind == "comparison":
        material.comparisons.append(content)
    elif kind == "demo":
        material.demos.append(content)
    elif kind is not None:
        single = content["runs"] if kind == "protocols" else [content]
        for own in single:
            name = str(own.get("run", file.stem))
            named = [run for run in material.runs if run.name == name]
            if len(named) > 1:
                material.problems.append(
                    f"{file} is of a run named {name}, and so are {len(named)} of these: it stands "
                    "by itself"
                )
            if len(named) == 1 and not _may_be_of(named[0], own):
                named = []
                material.problems.append(
                    f"{file} is of a run named {name} too, but of another training: it stands by "
                    "itself"
                )
            run = named[0] if len(named) == 1 else loose.setdefault(name, Run(name, Path("RUN")))
            _add_result(run, str(kind_of(own)), own, file, material.problems)
    elif content is not None:
        material.problems.append(f"{file} is no result that a report knows")


def _may_be_of(run: Run, result: dict[str, Any]) -> bool:
    """Whether a result's training, if it states one, is that of the run of its name."""
    stated = result.get("training")
    return not stated or not run.environment or stated == run.environment


def _read_run(folder: Path, problems: list[str]) -> Run:
    run = Run(folder.name or folder.resolve().name, folder)
    config = folder / "config.yaml"
    if config.exists():
        try:
            run.config_text = config.read_text(encoding="utf-8")
            found = yaml.safe_load(run.config_text) or {}
            if not isinstance(found, dict) or not isinstance(found.get("memory", {}), dict):
                raise ValueError("it is no recipe")
            run.config = found
        except (OSError, ValueError, yaml.YAMLError) as error:
            problems.append(f"{config} cannot be read ({_short(error)})")
    for name in ("environment", "training"):
        file = folder / f"{name}.json"
        if file.exists():
            found = _read_json(file, problems)
            setattr(run, name, found if isinstance(found, dict) else {})
    run.curves = read_curves(folder / "metrics.jsonl", problems)
    files = {*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("analysis/*/*.json")}
    results = []
    for file in files:
        if file.parent.name in ("model", "stages") or file.name == "index.json":
            continue
        content = _read_json(file, problems)
        kind = kind_of(content)
        if kind in ("evaluation", "controls", "analysis", "protocol", "faithfulness"):
            results.append((_made_at(content, file), file.name, kind, content, file))
    # By time, so that the newest of a kind is the last.
    for _, _, kind, content, file in sorted(results, key=lambda result: result[:2]):
        _add_result(run, kind, content, file, problems)
    return run


def _made_at(content: dict[str, Any], file: Path) -> str:
    """When a result was made: as it says, since copying changes a file's own time."""
    environment = content.get("environment")
    stated = environment.get("time_utc") if isinstance(environment, dict) else None
    if isinstance(stated, str):
        return stated
    changed = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC)
    return changed.isoformat(timespec="seconds")


def _add_result(run: Run, kind: str, content: Any, file: Path, problems: list[str]) -> None:
    run.results.setdefault(kind, []).append(content)
    wrong = file.with_name(f"{file.stem}-wrong.jsonl")
    if kind == "evaluation" and wrong.exists():
        run.wrong[id(content)] = json_lines(wrong, problems)


def _read_json(file: Path, problems: list[str]) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{file} cannot be read ({_short(error)})")
        return None


def _short(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


def main_evaluation(run: Run) -> dict[str, Any] | None:
    """The newest evaluation with the blocks of training, else the newest of all."""
    found = [e for e in run.of("evaluation") if e["summary"].get("blocks") == _trained(run)]
    return (found or run.of("evaluation") or [None])[-1]


def wrong_answers(run: Run) -> list[dict[str, Any]]:
    """Return the wrong answers of the main evaluation."""
    return run.wrong.get(id(main_evaluation(run)), [])


def main_controls(run: Run) -> dict[str, Any] | None:
    """The newest controls with the blocks of training, else the newest of all."""
    found = [c for c in run.of("controls") if _asked_with(c) == _trained(run)]
    return (found or run.of("controls") or [None])[-1]


def main_protocols(run: Run) -> dict[str, dict[str, Any]]:
    """Of each protocol the newest result with the blocks of training, else the newest of all."""
    results = run.of("protocol")
    chosen = [r for r in results if _asked_with(r) == _trained(run)]
    return {result["protocol"]: result for result in [*results, *chosen]}


def made_on(result: dict[str, Any]) -> str:
    """`5 blocks, 600 questions of test.jsonl`."""
    data = result.get("data", {})
    asked = f"{data.get('examples', '?')} questions of {data.get('name', 'a file')}"
    return f"{_asked_with(result) or '?'} blocks, {asked}"


def _asked_with(result: dict[str, Any]) -> Any:
    return result.get("settings", {}).get("blocks")


def _trained(run: Run) -> Any:
    return run.config.get("memory", {}).get("blocks")


def by_blocks(run: Run) -> list[tuple[int, dict[str, Any]]]:
    """Final accuracy under each number of blocks that was asked for on the main data."""
    main = main_evaluation(run)
    if main is None:
        return []
    same = [e for e in run.of("evaluation") if e["data"] == main["data"]]
    found = {
        e["summary"]["blocks"]: e["summary"]["final"]
        for e in same
        if isinstance(e["summary"].get("blocks"), int)
    }
    return sorted(found.items())
