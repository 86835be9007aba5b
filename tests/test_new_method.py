"""A new method is one file: declared, it trains, answers, saves, compares and is timed. Nobody else
knows its name.
"""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from new_methods import Countdown, GatedFeedback
from rich.console import Console
from test_benchmark import settings as bench_settings
from test_training import raw_recipe, run

from rim.config import ConfigError
from rim.config.recipe_yaml import recipe_from_dict
from rim.infer.reasoner import load
from rim.methods import METHODS
from rim.study.bench.measure import run_benchmark
from rim.study.bench.subject import trained_subject
from rim.study.compare.runner import run_comparison
from rim.study.compare.settings import load_comparison


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(METHODS, "_loaded", dict(METHODS._loaded))
    METHODS.register(Countdown())
    METHODS.register(GatedFeedback())


MEMORY = {"countdown": {"blocks": 3}, "gated": {"blocks": 2, "tokens": 1, "framing": "once"}}


def recipe_of(method, tmp_path, **changes):
    raw = raw_recipe(tmp_path, name=method, method=method, memory=MEMORY[method], **changes)
    steps, answers = raw["stages"]
    steps |= {"weighting": "ones"}
    answers |= {"weighting": "ones"}
    raw["stages"] = [s for s in (steps, answers) if s["objective"] in METHODS[method].objectives]
    for stage in raw["stages"]:
        stage.pop("alignment", None)
    return raw


@pytest.mark.slow
@pytest.mark.parametrize("method", ["countdown", "gated"])
def test_a_new_method_trains_answers_saves_and_is_timed(method, tmp_path):
    finished = run(recipe_of(method, tmp_path))
    reasoner = load(finished.path)
    assert reasoner.trained_blocks == MEMORY[method]["blocks"]
    answers = reasoner.ask_all_blocks("3+4=", max_new_tokens=3)
    assert [a.after_block for a in answers] == list(range(1, len(answers) + 1))
    again = load(finished.path)
    assert again.ask("3+4=", max_new_tokens=3) == reasoner.ask("3+4=", max_new_tokens=3)
    if method == "gated":  # its own module was trained, saved and found again
        assert torch.equal(
            again.model.latent_projection[0].weight, reasoner.model.latent_projection[0].weight
        )
        fresh = METHODS[method].extra_modules["latent_projection"](32)
        assert not torch.equal(again.model.latent_projection[0].weight, fresh[0].weight)
    chosen = bench_settings(methods=("direct", method), question_tokens=(4,))
    rows = run_benchmark(trained_subject(finished.path, "cpu"), chosen)["rows"]
    assert [row["method"] for row in rows] == ["direct", method]


@pytest.mark.slow
def test_new_methods_are_compared_with_old_ones(tmp_path):
    common = {
        key: recipe_of("countdown", tmp_path)[key] for key in ("model", "templates", "validation")
    }
    data = recipe_of("countdown", tmp_path)["data"]
    answers = {"objective": "answer", "max_steps": 2, "batch_size": 8, "learning_rate": 1e-3}
    comparison = {
        "name": "new",
        "runs_dir": str(tmp_path / "runs"),
        "seeds": [0],
        "reference": "countdown",
        "tasks": {
            "chains": {
                "data": data,
                "test": {
                    "format": "arithmetic",
                    "arithmetic": {"num_examples": 6, "split": "test"},
                },
            }
        },
        "common": common,
        "methods": {
            name: {
                "method": name,
                "memory": MEMORY.get(name, {}),
                "stages": [{"name": "answers", **answers}],
            }
            for name in ("direct", "countdown", "gated")
        },
        "latency": {"questions": 2},
        "controls": {"questions": 4},
    }
    path = tmp_path / "new.yaml"
    path.write_text(yaml.safe_dump(comparison))
    run_comparison(load_comparison(path), Console(quiet=True))
    records = sorted((tmp_path / "runs" / "new" / "results" / "chains").glob("*.json"))
    found = {json.loads(record.read_text())["method"] for record in records}
    assert found == {"direct", "countdown", "gated"}


def test_what_a_method_declares_is_what_recipes_may_say(tmp_path):
    raw = recipe_of("gated", tmp_path)
    with pytest.raises(ConfigError, match=r"gated needs memory\.tokens: 1"):
        recipe_from_dict(raw | {"memory": {"blocks": 2}})
    with pytest.raises(ConfigError, match=r"memory\.passes must be 1"):
        recipe_from_dict(raw | {"memory": MEMORY["gated"] | {"passes": 2}})
    with pytest.raises(ConfigError, match="objective 'solution' does not belong to method 'gated'"):
        recipe_from_dict(raw | {"stages": [raw["stages"][0] | {"objective": "solution"}]})
    with pytest.raises(ConfigError, match=r"no method 'countdwn'.*did you mean 'countdown'"):
        recipe_from_dict(raw | {"method": "countdwn"})
    with pytest.raises(ValueError, match="there is a method 'gated' already"):
        METHODS.register(GatedFeedback())


def test_a_package_offers_methods_by_an_entry_point(monkeypatch):
    class Point:
        name = "offered"

        def load(self):
            method = Countdown()
            method.name = "offered"  # type: ignore[misc]
            return method

    monkeypatch.setattr("rim.methods.entry_points", lambda group: [Point()])
    monkeypatch.setattr(METHODS, "_offered", None)
    assert "offered" in METHODS and METHODS["offered"].has_blocks
    assert list(METHODS)[-1] == "offered"
