"""Nothing changed in what is computed: losses of every method as before the sources were rebuilt
(`reference_losses.json`), to 1e-4 on any machine. Bit for bit on one machine, checked then.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import rim.train.arguments
import rim.train.curriculum
from rim.config.recipe_yaml import recipe_from_dict
from rim.study.demo import demo_recipes
from rim.train.curriculum import train
from rim.train.trainer import ReadoutTrainer

LOSSES = json.loads(Path(__file__).with_name("reference_losses.json").read_text())["losses"]
CHAINS = {"num_examples": 200}
LATENTS = {"blocks": 4, "tokens": 1, "framing": "once"}


def stage(name, objective, **extra):
    return {"name": name, "objective": objective, "max_steps": 10, "batch_size": 8} | extra


def own_step(**extra):
    return stage("grounding", "steps", alignment="own_step", **extra)


def answers(**extra):
    return stage("refinement", "answer", weighting="later_more", **extra)


def removal(name, **extra):
    return stage(name, "remaining", **extra)


#: method, blocks, stages
TINY = {
    "pause": ("pause", {"blocks": 5, "framing": "none"}, [stage("answers", "answer")]),
    "icot": (
        "icot",
        {},
        [
            stage("solutions", "solution"),
            removal("removal", removed_tokens=4),
            removal("all", removed_tokens="all"),
        ],
    ),
    "coconut": (
        "coconut",
        LATENTS,
        [
            stage("solutions", "solution"),
            removal("one", removed_steps=1),
            removal("all", removed_steps="all"),
        ],
    ),
    "codi": ("codi", LATENTS, [stage("distil", "distillation")]),
    "lotus": (
        "lotus",
        {"blocks": 4, "tokens": 3, "framing": "once", "passes": 2},
        [stage("solutions", "solution"), stage("steps", "steps", step_weight=0.05)],
    ),
    "rim_paper": (
        "rim",
        {"blocks": 5},
        [stage("grounding", "steps", weighting="anneal_relative"), answers()],
    ),
    "rim_looped": (
        "rim",
        {"blocks": 5, "passes": 2},
        [own_step(surplus_blocks="answer"), answers(reduction="mean")],
    ),
    "rim_blind": ("rim", {"blocks": 5, "readouts_see_question": False}, [own_step()]),
    "rim_bidirectional": ("rim", {"blocks": 5, "attention": "bidirectional"}, [own_step()]),
}


class EnoughError(Exception):
    """Ends a training whose first steps are wanted."""


@pytest.fixture
def losses(monkeypatch):
    """Runs a recipe on one thread as it was run then; its losses, of the first `most` steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: list[float] = []
    limit = [0]
    original = ReadoutTrainer.training_step

    def step(self, *args, **kwargs):
        loss = original(self, *args, **kwargs)
        found.append(loss.item())
        if len(found) == limit[0]:
            raise EnoughError
        return loss

    monkeypatch.setattr(ReadoutTrainer, "training_step", step)
    for module in (rim.train.curriculum, rim.train.arguments):
        monkeypatch.setattr(module, "stage_seed", lambda seed, index: seed + index)

    def run(recipe, most=0):
        found.clear()
        limit[0] = most
        with contextlib.suppress(EnoughError):
            train(recipe, console=Console(quiet=True))
        return list(found)

    yield run
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_tiny_run_of_each_method_has_the_losses_it_had(name, losses, tmp_path):
    method, memory, stages = TINY[name]
    split = {"num_examples": 8, "split": "validation"}
    raw = {
        "name": name,
        "method": method,
        "runs_dir": str(tmp_path),
        "data": {
            "train": {"format": "arithmetic", "arithmetic": CHAINS},
            "validation": {"format": "arithmetic", "arithmetic": split},
        },
        "model": {
            "scratch": {
                "layers": 2,
                "width": 32,
                "heads": 2,
                "vocab_size": 16,
                "alphabet": "data",
                "initializer_range": 0.1,
            },
            "tuning": "full",
        },
        "memory": memory,
        "templates": {"question": "{question}", "answer": "#{answer}", "step_separator": ";"},
        "validation": {"num_examples": 8, "max_new_tokens": 16},
        "stages": [s | {"learning_rate": 2e-3, "evaluate_every": 10} for s in stages],
    }
    found = losses(recipe_from_dict(raw))
    assert found == pytest.approx(LOSSES[name], rel=1e-4)


@pytest.mark.slow
def test_the_demos_trainings_have_the_losses_they_had(losses, tmp_path):
    """Base, direct, chain of thought and RiM; their stages cut to 8 steps on 1,000 examples, of
    which the first four are compared but for the base, which the others start from. (Stored by the
    code that had just given the losses of 50 steps, stored before the sources were rebuilt.)
    """
    for name, recipe in demo_recipes(0, tmp_path / "demo").items():
        stages = [s.model_copy(update={"max_steps": 8, "evaluate_every": 8}) for s in recipe.stages]
        validation = recipe.validation.model_copy(update={"num_examples": 8})
        few = recipe.data.train.arithmetic.model_copy(update={"num_examples": 1000})
        train_data = recipe.data.train.model_copy(update={"arithmetic": few})
        data = recipe.data.model_copy(update={"train": train_data})
        short = recipe.model_copy(
            update={"stages": tuple(stages), "validation": validation, "data": data}
        )
        most = 0 if name == "base" else 4
        expected = LOSSES[f"demo_{name}"]
        found = losses(short, most)
        assert found == pytest.approx(expected[: most or None], rel=1e-4), name
