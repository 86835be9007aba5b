"""A small comparison: direct answers and RiM from one base, each of six steps."""

from __future__ import annotations

import json

import yaml
from rich.console import Console
from test_training import raw_recipe

from rim.study.compare.settings import load_comparison

QUIET = Console(quiet=True)


def stage(name, objective, steps, **more):
    settings = {"name": name, "objective": objective, "max_steps": steps, "batch_size": 8}
    return settings | {"learning_rate": 1e-3, "evaluate_every": 2} | more


def raw_comparison(tmp_path, **changes):
    recipe = raw_recipe(tmp_path)
    raw = {
        "name": "smoke",
        "runs_dir": str(tmp_path / "runs"),
        "seeds": [0],
        "tasks": {
            "chains": {
                "data": recipe["data"],
                "test": {
                    "format": "arithmetic",
                    "arithmetic": {"num_examples": 20, "split": "test"},
                },
            }
        },
        "common": {
            "model": {"tuning": "full"},
            **{key: recipe[key] for key in ("memory", "templates", "validation")},
        },
        "starts": {
            "base": {
                "method": "cot",
                "model": {"scratch": recipe["model"]["scratch"]},
                "stages": [stage("solutions", "solution", 2)],
            }
        },
        "methods": {
            "direct": {
                "from": "base",
                "method": "direct",
                "stages": [stage("answers", "answer", 6)],
            },
            "rim": {
                "from": "base",
                "method": "rim",
                "stages": [stage("grounding", "steps", 2), stage("refinement", "answer", 4)],
            },
        },
        "evaluation": {"max_new_tokens": 4},
        "latency": {"questions": 2},
    }
    return raw | changes


def write(tmp_path, raw):
    path = tmp_path / "comparison.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def settings_of(tmp_path, *overrides, **changes):
    return load_comparison(write(tmp_path, raw_comparison(tmp_path, **changes)), overrides)


def results(folder):
    """What must not depend on interruptions: everything but times."""
    found = {}
    for path in sorted(folder.glob("results/*/*.json")):
        record = json.loads(path.read_text())
        total = record["training"]["total"]
        counts = {key: value for key, value in total.items() if key != "seconds"}
        found[path.name] = (record["results"], counts)
    return found
