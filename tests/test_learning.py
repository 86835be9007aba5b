"""Every method learns a trivially small task through the same trainer, files and decoder, resumes
bit for bit, and comes back from disk as it was.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from rim.config import ConfigError
from rim.config.recipe_yaml import recipe_from_dict
from rim.data.sources import open_file
from rim.evaluate.accuracy import score
from rim.infer.reasoner import load
from rim.models.folder import read_prompt_format
from rim.models.loading import load_trained
from rim.train.curriculum import train

ONCE = {"blocks": 2, "tokens": 1, "framing": "once"}
REMOVE = {"for_each": {"removed_steps": [1, "all"]}}
#: method (with its switches): blocks, stages as (objective, steps, more settings)
METHODS = {
    "direct": ({}, [("answer", 90, {})]),
    "cot": ({}, [("solution", 60, {})]),
    "pause": ({"blocks": 4, "tokens": 1, "framing": "none"}, [("answer", 60, {})]),
    "pause-curriculum": (
        {"blocks": 2},
        [("solution", 30, {}), ("remaining", 40, REMOVE)],
    ),
    "icot": (
        {},
        [("solution", 40, {}), ("remaining", 40, {"for_each": {"removed_tokens": [2, "all"]}})],
    ),
    "rim": ({"blocks": 2}, [("steps", 40, {"alignment": "own_step"}), ("answer", 30, {})]),
    "rim-looped": (
        {"blocks": 2, "passes": 2},
        [("steps", 60, {"alignment": "own_step"}), ("answer", 60, {})],
    ),
    "coconut": (ONCE, [("solution", 30, {}), ("remaining", 40, REMOVE)]),
    "codi": (ONCE, [("distillation", 80, {"drop_last_step": False, "reduction": "mean"})]),
    "lotus": (
        ONCE | {"tokens": 3, "passes": 2},
        [("solution", 30, {}), ("steps", 60, {"step_weight": 0.05})],
    ),
}
LETTERS = "abcdefghijklmnop"


def write_data(folder: Path) -> None:
    """Which digit stands at the end: a question to copy, with a step that names it."""

    def lines(letters: str) -> str:
        records = [
            {"question": f"{c}{n}", "steps": [f"{n}={n}"], "answer": str(n)}
            for c in letters
            for n in range(10)
        ]
        return "".join(json.dumps(record) + "\n" for record in records)

    (folder / "train.jsonl").write_text(lines(LETTERS[:-2]))
    (folder / "validation.jsonl").write_text(lines(LETTERS[-2]))
    (folder / "test.jsonl").write_text(lines(LETTERS[-1]))


def recipe_for(variant: str, folder: Path, family: str = "llama", **changes: object):
    memory, stages = METHODS[variant]
    raw = {
        "name": variant,
        "method": variant.partition("-")[0],
        "runs_dir": str(folder / "runs"),
        "data": {
            "train": {"format": "jsonl", "path": str(folder / "train.jsonl")},
            "validation": {"format": "jsonl", "path": str(folder / "validation.jsonl")},
        },
        "model": {
            "scratch": {
                "family": family,
                "layers": 2,
                "width": 32,
                "heads": 2,
                "vocab_size": 32,
                "alphabet": "data",
            },
            "tuning": "full",
        },
        "memory": memory,
        "templates": {"question": "{question}", "answer": "{answer}", "step_separator": ";"},
        "stages": [
            {
                "name": f"{i}-{objective}",
                "objective": objective,
                "max_steps": steps,
                "batch_size": 32,
                "learning_rate": 1e-2,
                "evaluate_every": steps,
            }
            | more
            for i, (objective, steps, more) in enumerate(stages)
        ],
        "validation": {"num_examples": 10, "max_new_tokens": 8},
    }
    return recipe_from_dict(raw | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs by the method's name, each trained once for the tests that only read them."""
    folder, runs = tmp_path_factory.mktemp("trained"), {}
    write_data(folder)

    def run_of(method: str, **changes: object):
        if (key := str(changes.get("name", method))) not in runs:
            recipe = recipe_for(method, folder, **changes)
            runs[key] = train(recipe, console=Console(quiet=True))
        return runs[key]

    return run_of


@pytest.fixture
def codi_under_lora(trained):
    """CODI's adapter and projection, on a base that writes steps."""
    model = {"base": str(trained("cot").path), "tuning": "lora", "lora": {"rank": 8}}
    return trained("codi", name="codi-lora", model=model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("direct", "cot", "rim") else pytest.mark.slow)
        for name in METHODS
    ],
)
def test_learns_a_trivially_small_task_and_survives_the_disk(name, trained, tmp_path):
    write_data(tmp_path)
    run = trained(name)
    test = open_file(tmp_path / "test.jsonl")
    reasoner = load(run.path)
    assert score(reasoner, test, max_new_tokens=8).accuracy >= 0.9
    # An untrained projection, or one lost on the way, would change the answers' probabilities.
    again = load(run.path)
    for example in test[:3]:
        assert again.ask(example.question) == reasoner.ask(example.question)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coconut", "codi", "lotus", "icot", "pause-curriculum"])
def test_a_killed_run_resumes_bit_for_bit(name, tmp_path, monkeypatch):
    import rim.train.trainer

    write_data(tmp_path)
    recipe = recipe_for(name, tmp_path)
    short = {"max_steps": 4, "evaluate_every": 2}
    stages = tuple(stage.model_copy(update=short) for stage in recipe.stages)
    recipe = recipe.model_copy(update={"stages": stages})
    whole = train(recipe, console=Console(quiet=True))
    reference = load_trained(whole.model_dir)[0].state_dict()
    shutil.move(whole.path, tmp_path / "whole")
    original, calls = rim.train.trainer.ReadoutTrainer.training_step, [0]

    def dies(self, *args, **kwargs):
        calls[0] += 1
        if calls[0] == 4 * (len(stages) - 1) + 4:  # in the last stage, after its first checkpoint
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(rim.train.trainer.ReadoutTrainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, console=Console(quiet=True))
    resumed = train(recipe, resume=True, console=Console(quiet=True))
    weights = load_trained(resumed.model_dir)[0].state_dict()
    assert weights.keys() == reference.keys()
    assert all(torch.equal(weights[key], reference[key]) for key in reference)


@pytest.mark.slow
def test_codis_projection_trains_saves_and_merges_under_lora(codi_under_lora, tmp_path):
    write_data(tmp_path)
    run = codi_under_lora
    adapted, _ = load_trained(run.model_dir)
    merged, _ = load_trained(run.model_dir, merge=True)
    projection = merged.latent_projection[0].weight
    saved = adapted.get_base_model().latent_projection.modules_to_save["default"][0].weight
    untouched = adapted.get_base_model().latent_projection.original_module[0].weight
    assert torch.equal(projection, saved)
    assert not torch.equal(saved, untouched)
    assert not any("latent_projection" in n and "lora" in n for n, _ in adapted.named_parameters())
    test = open_file(tmp_path / "test.jsonl")
    assert score(load(run.path), test, max_new_tokens=8).accuracy >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_codi_run_continues_with_its_own_projection(tuning, trained, request):
    from rim.config import ModelConfig
    from rim.models.loading import load_base

    run = trained("codi") if tuning == "full" else request.getfixturevalue("codi_under_lora")
    projection = load_trained(run.model_dir, merge=True)[0].latent_projection.state_dict()
    config = ModelConfig(base=str(run.path), tuning="full")
    wanted = read_prompt_format(run.model_dir)
    again = load_base(config, wanted, (), seed=1)[0].latent_projection.state_dict()
    assert all(torch.equal(again[key], projection[key]) for key in projection)


def test_a_curriculum_is_written_out_stage_by_stage(tmp_path):
    write_data(tmp_path)
    recipe = recipe_for("coconut", tmp_path)
    assert [s.name for s in recipe.stages] == ["0-solution", "1-remaining-1", "1-remaining-all"]
    assert [s.removed_steps for s in recipe.stages] == [None, 1, "all"]


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        ("coconut", {"objective": "remaining"}, "exactly one of 'removed_steps'"),
        ("coconut", {"objective": "remaining", "removed_tokens": 3}, "wants 'removed_steps'"),
        ("icot", {"objective": "remaining", "removed_steps": 3}, "wants 'removed_tokens'"),
        ("coconut", {"objective": "answer"}, "does not belong to method 'coconut'"),
        ("rim", {"objective": "steps", "removed_steps": 1}, "exactly one of 'removed_steps'"),
        (
            "lotus",
            {"objective": "steps", "gradient_checkpointing": True},
            "gradient_checkpointing has no cache",
        ),
        ("coconut", {"objective": "remaining", "for_each": [1]}, "for_each takes one setting"),
    ],
)
def test_stages_that_do_not_fit_are_refused(name, stage, message, tmp_path):
    write_data(tmp_path)
    with pytest.raises(ConfigError, match=message):
        recipe_for(name, tmp_path, stages=[{"name": "s", "max_steps": 1} | stage])


def test_passes_belong_to_rim_and_lotus(tmp_path):
    write_data(tmp_path)
    with pytest.raises(ConfigError, match=r"memory.passes must be 1"):
        recipe_for("coconut", tmp_path, memory={"blocks": 2, "passes": 2})
    with pytest.raises(ConfigError, match="lotus needs"):
        recipe_for("lotus", tmp_path, memory={"blocks": 2, "passes": 2})


def test_a_scale_of_feedback_needs_states_that_are_fed_back(tmp_path):
    write_data(tmp_path)
    scaled = {"blocks": 2, "feedback_scale": "embeddings"}
    with pytest.raises(ConfigError, match="with method 'rim' and these passes there are none"):
        recipe_for("rim", tmp_path, memory=scaled)
    assert recipe_for("coconut", tmp_path, memory=scaled).memory.feedback_scale == "embeddings"
    assert recipe_for("rim", tmp_path, memory=scaled | {"passes": 2}).memory.passes == 2


def test_a_sweep_of_stages_needs_a_name(tmp_path):
    write_data(tmp_path)
    sweep = {"objective": "remaining", "max_steps": 1, "for_each": {"removed_steps": [1]}}
    with pytest.raises(ConfigError, match="needs a name"):
        recipe_for("coconut", tmp_path, stages=[sweep])
