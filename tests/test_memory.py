"""Micro-batches found by trial, out of memory in one sentence, stages that end early."""

from __future__ import annotations

import json

import pytest
import torch
from test_training import losses, raw_recipe, run, weights_of

import rim.train.memory
import rim.train.trainer
from rim.config import ConfigError
from rim.config.recipe_yaml import recipe_from_dict
from rim.results import read_json, write_json
from rim.study.compare.plan import make_plan
from rim.train.curriculum import train
from rim.train.memory import divisors, find_micro_batch, free_memory
from rim.train.out_of_memory import TrainingMemoryError
from rim.train.run_folder import RunFolder
from rim.train.trainer import ReadoutTrainer


def one_stage(tmp_path, **changes):
    raw = raw_recipe(tmp_path)
    return raw | {"stages": [raw["stages"][0] | changes]}


def micro_batches(folder):
    return read_json(folder.path / "micro_batches.json")


# --- micro_batch_size: auto ----------------------------------------------------------------------


def test_where_memory_is_plenty_the_whole_batch_is_taken_and_it_is_said(tmp_path, capsys):
    from rich.console import Console

    raw = one_stage(tmp_path, max_steps=1, evaluate_every=1)
    folder = train(recipe_from_dict(raw), console=Console(width=200))
    record = micro_batches(folder)["grounding"]
    assert record["micro_batch_size"] == record["whole"] == 8
    assert 0 < record["needed"] < record["free"]
    assert "Micro-batches: 8, all at once (about 0.0" in capsys.readouterr().out


@pytest.mark.slow
def test_little_memory_gives_parts_with_the_same_losses(tmp_path, monkeypatch):
    raw = one_stage(tmp_path, max_steps=3)
    whole = run(raw | {"name": "whole"})
    needed = micro_batches(whole)["grounding"]["needed"]
    monkeypatch.setattr(rim.train.memory, "free_memory", lambda device: int(0.8 * needed))
    parts = run(raw | {"name": "parts"})
    micro = micro_batches(parts)["grounding"]["micro_batch_size"]
    assert micro in (1, 2, 4)
    assert [x[2] for x in losses(parts)] == pytest.approx([x[2] for x in losses(whole)], rel=1e-4)


@pytest.mark.slow
def test_a_resumed_stage_keeps_to_its_micro_batches(tmp_path, monkeypatch):
    raw = one_stage(tmp_path, dropout=0.1)
    monkeypatch.setattr(rim.train.memory, "free_memory", lambda device: 0)
    whole = run(raw | {"name": "whole"})
    assert micro_batches(whole)["grounding"]["micro_batch_size"] == 1
    original = ReadoutTrainer.training_step

    def stop(self, *args, **kwargs):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ReadoutTrainer, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        run(raw)
    monkeypatch.setattr(ReadoutTrainer, "training_step", original)
    monkeypatch.setattr(rim.train.memory, "free_memory", free_memory)  # plenty now
    resumed = run(raw, resume=True)
    assert micro_batches(resumed)["grounding"]["micro_batch_size"] == 1
    first, second = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_trial_leaves_no_trace(encoder, examples):
    from conftest import stage, tiny_model

    from rim.core.layout import lay_out
    from rim.methods import METHODS

    model = tiny_model("llama", encoder.tokenizer)
    settings = stage(batch_size=6, gradient_checkpointing=True)
    layouts = [lay_out(METHODS["rim"], e, settings, encoder) for e in examples]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.random.get_rng_state()
    step = rim.train.memory._Step(settings, model, encoder)
    step.take(layouts, torch.device("cpu"))
    checkpointed = find_micro_batch(settings, model, encoder, layouts).needed
    plain = settings.model_copy(update={"gradient_checkpointing": False})
    whole = find_micro_batch(plain, model, encoder, layouts).needed
    assert checkpointed and whole and checkpointed < whole
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model.training and not model.is_activation_checkpointing


def test_mixed_precisions_copies_of_the_weights_are_counted_once(encoder, examples):
    from conftest import stage, tiny_model

    from rim.core.layout import lay_out
    from rim.methods import METHODS

    model = tiny_model("llama", encoder.tokenizer)
    settings = stage(batch_size=32, bf16=True, packing=False)
    layouts = [lay_out(METHODS["rim"], examples[0], settings, encoder)] * 32
    kept = rim.train.memory._Step(settings, model, encoder).kept_bytes(layouts)
    state = rim.train.memory.STATE * sum(p.nbytes for p in model.parameters())
    needed = find_micro_batch(settings, model, encoder, layouts).needed
    assert needed and 0.97 * kept < (needed - state) / rim.train.memory.PEAK <= kept


@pytest.mark.slow
def test_on_a_device_that_says_no_smaller_parts_are_tried(encoder, examples, monkeypatch):
    """What a GPU does, played by an error of its kind."""
    from conftest import stage, tiny_model

    from rim.core.layout import lay_out
    from rim.methods import METHODS

    layouts = [lay_out(METHODS["rim"], e, stage(), encoder) for e in examples]
    step = rim.train.memory._Step(stage(), tiny_model("llama", encoder.tokenizer), encoder)
    tried, most = [], 4

    def take(layouts, device):
        tried.append(len(layouts))
        if len(layouts) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(step, "take", take)
    assert rim.train.memory._tried(step, layouts, 12, torch.device("cpu")) == 4
    assert tried == [12, 6, 4]
    most = 0
    with pytest.raises(TrainingMemoryError, match="not even one example of stage 's'"):
        rim.train.memory._tried(step, layouts, 12, torch.device("cpu"))


def groups(tmp_path, monkeypatch, own: str, **limits: tuple[str, int]):
    """Control groups of which each has a limit and uses so much, 600 of it for files."""
    monkeypatch.setattr(rim.train.memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(rim.train.memory, "_OWN_GROUP", tmp_path / "own")
    (tmp_path / "own").write_text(f"4:memory:/elsewhere\n0::{own}\n")
    for name, (limit, used) in limits.items():
        folder = tmp_path / name.replace("_", "/").removeprefix("root")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 200\nactive_file 100\ninactive_file 600\n")


def test_files_that_a_container_has_read_leave_room(tmp_path, monkeypatch):
    groups(tmp_path, monkeypatch, "/", root=("1000", 900))
    assert free_memory(torch.device("cpu")) == 700
    (tmp_path / "memory.max").write_text("max\n")  # no limit
    assert free_memory(torch.device("cpu")) > 10_000


@pytest.mark.parametrize(("job", "step", "free"), [(2000, "max", 700), (9000, 1500, 1200)])
def test_a_limit_of_an_outer_group_counts_too(tmp_path, monkeypatch, job, step, free):
    """A cluster's job has the limit, its steps lie within it; the tightest counts."""
    used = {"job": (str(job), 1900), "job_step": (str(step), 900)}
    groups(tmp_path, monkeypatch, "/job/step", **used)
    assert free_memory(torch.device("cpu")) == free


def test_without_control_groups_the_machine_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(rim.train.memory, "_OWN_GROUP", tmp_path / "absent")
    assert free_memory(torch.device("cpu")) > 10_000


def test_divisors():
    assert divisors(12) == [12, 6, 4, 3, 2, 1]
    assert divisors(1) == [1]


# --- out of memory -------------------------------------------------------------------------------

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
PROCESSOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 4096000000000 bytes. Error code 12 (Cannot allocate memory)"
)


def full_at(monkeypatch, step, error=PROCESSOR, least=1):
    """The given step finds no memory, with micro-batches of so many examples or more."""
    original = ReadoutTrainer.compute_loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        size = len(inputs["num_readouts"])
        if model.training and self.state.global_step == step - 1 and size >= least:
            raise error
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(ReadoutTrainer, "compute_loss", compute_loss)


@pytest.mark.slow
@pytest.mark.parametrize("error", [CUDA, PROCESSOR, MemoryError()])
def test_out_of_memory_is_a_sentence_and_resuming_goes_on_smaller(tmp_path, monkeypatch, error):
    raw = one_stage(tmp_path)
    full_at(monkeypatch, 5, error, least=8)
    monkeypatch.setattr("rim.train.failures.multiplies_bfloat16", lambda: True)
    with pytest.raises(TrainingMemoryError) as caught:
        run(raw)
    said = str(caught.value)
    assert "stage 'grounding' with micro-batches of 8 examples" in said
    assert "checkpoint-3" in said and "--resume goes on with micro-batches of 4" in said
    for setting in ("gradient_checkpointing: true", "bf16: true", "packing: false"):
        assert setting in said
    folder = run(raw, resume=True)
    assert folder.finished
    assert micro_batches(folder)["grounding"]["micro_batch_size"] == 4


@pytest.mark.slow
def test_out_of_memory_while_validating_names_the_setting_that_helps(tmp_path, monkeypatch):
    raw = one_stage(tmp_path)
    original = ReadoutTrainer.compute_loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        if not model.training and self.state.global_step > 3 and len(inputs["num_readouts"]) > 2:
            raise PROCESSOR
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(ReadoutTrainer, "compute_loss", compute_loss)
    raw["validation"]["batch_size"] = 4
    with pytest.raises(TrainingMemoryError) as caught:
        run(raw)
    said = str(caught.value)
    assert "while validating in batches of 4" in said and "checkpoint-3" in said
    assert "--resume --set validation.batch_size=2 goes on" in said
    assert micro_batches(RunFolder(tmp_path / "runs" / "run"))["grounding"]["micro_batch_size"] == 8
    raw["validation"]["batch_size"] = 2
    assert run(raw, resume=True).finished


def test_out_of_memory_in_the_first_step_leaves_what_resume_needs(tmp_path, monkeypatch):
    raw = one_stage(tmp_path)
    full_at(monkeypatch, 1, least=8)
    monkeypatch.setattr("rim.train.failures.multiplies_bfloat16", lambda: False)
    with pytest.raises(TrainingMemoryError, match=r"none yet\. --resume goes on with") as caught:
        run(raw)
    assert "bf16" not in str(caught.value)  # emulated, it would take days instead of memory
    folder = run(raw, resume=True)
    assert folder.finished
    assert micro_batches(folder)["grounding"]["micro_batch_size"] == 4


def test_where_no_smaller_part_is_left_the_name_stays_free(tmp_path, monkeypatch):
    changes = {"bf16": True, "gradient_checkpointing": True, "packing": False}
    raw = one_stage(tmp_path, micro_batch_size=1, **changes)
    full_at(monkeypatch, 1)
    with pytest.raises(TrainingMemoryError) as caught:
        run(raw)
    assert "in a new run a smaller validation.batch_size would help too" in str(caught.value)
    assert not (tmp_path / "runs" / "run").exists()


@pytest.mark.slow
def test_an_explicit_size_may_be_made_smaller_by_a_resumed_run(tmp_path, monkeypatch):
    raw = one_stage(tmp_path, micro_batch_size=4)
    full_at(monkeypatch, 5, least=4)
    with pytest.raises(
        TrainingMemoryError,
        match=r"--resume --set stages\.grounding\.micro_batch_size=2 goes on",
    ):
        run(raw)
    with pytest.raises(TrainingMemoryError):
        run(raw, resume=True)
    raw["stages"][0]["micro_batch_size"] = 2
    assert run(raw, resume=True).finished
    raw["stages"][0]["learning_rate"] = 2e-3
    with pytest.raises(ConfigError, match="is finished"):
        run(raw, resume=True)


@pytest.mark.slow
def test_the_command_prints_no_traceback(tmp_path, monkeypatch):
    from test_cli import rim_command

    full_at(monkeypatch, 5)
    file = tmp_path / "r.json"  # JSON is YAML
    write_json(file, one_stage(tmp_path))
    output = rim_command("train", file, code=3)
    assert "Training stopped: out of memory in stage 'grounding'" in output
    assert "Traceback" not in output


def test_other_commands_say_it_too(capsys):
    import typer

    from rim.cli.common import clear_errors

    with pytest.raises(typer.Exit) as ended, clear_errors():
        torch.empty(2**60)
    assert ended.value.exit_code == 3
    said = capsys.readouterr().err
    assert said.startswith("Out of memory: ") and "--batch-size" in said
    with pytest.raises(RuntimeError, match="something else"), clear_errors():
        raise RuntimeError("something else")


# --- patience ------------------------------------------------------------------------------------

#: Accuracies of ten validations: the best is the third.
RISING = [0.1, 0.2, 0.6, 0.5, 0.6, 0.3, 0.9, 0.9, 0.9, 0.9]


def scored(monkeypatch, accuracies):
    """Validations see these accuracies, by step; the loss only grows."""

    def evaluate(self, *args, **kwargs):
        step = self.state.global_step
        metrics = {"eval_loss": 1.0 + step, "eval_accuracy": accuracies[step - 1]}
        metrics["eval_selection"] = metrics["eval_accuracy"] - 1e-6 * metrics["eval_loss"]
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    monkeypatch.setattr(ReadoutTrainer, "evaluate", evaluate)


def ended(folder):
    (cost,) = read_json(folder.path / "training.json")["stages"]
    return cost["steps"], cost["planned_steps"], cost["ended_early"]


@pytest.mark.slow
def test_a_stage_ends_when_validation_rises_no_more(tmp_path, monkeypatch):
    scored(monkeypatch, RISING)
    raw = one_stage(tmp_path, max_steps=10, evaluate_every=1, patience=3)
    folder = run(raw)
    steps, planned, sentence = ended(folder)
    assert (steps, planned) == (6, 10)
    assert sentence.startswith("ended after 6 of 10 steps: 3 validations in a row brought no")
    last = json.loads(folder.metrics_file.read_text().splitlines()[-1])
    assert last == {"stage": "grounding", "step": 6, "ended": sentence, "planned": 10}
    assert read_json(folder.path / "training.json")["total"]["steps"] == 6
    raw = one_stage(tmp_path, max_steps=10, evaluate_every=1, patience=4)
    assert ended(run(raw | {"name": "b"})) == (10, 10, None)


@pytest.mark.slow
def test_the_next_stage_takes_the_steps_that_are_left(tmp_path, monkeypatch):
    scored(monkeypatch, RISING)
    raw = one_stage(tmp_path, max_steps=10, evaluate_every=1, patience=3)
    (first,) = raw["stages"]
    first["unused_steps"] = "next_stage"
    second = {"name": "refinement", "objective": "answer", "batch_size": first["batch_size"]}
    raw["stages"].append(second | {"max_steps": 2, "evaluate_every": 2})
    stages = read_json(run(raw).path / "training.json")["stages"]
    assert [(s["steps"], s["planned_steps"]) for s in stages] == [(6, 10), (6, 6)]


@pytest.mark.parametrize("stages", ["last", "unlike"])
def test_steps_are_handed_to_a_like_stage_alone(tmp_path, stages):
    raw = one_stage(tmp_path, max_steps=10, patience=3, unused_steps="next_stage")
    if stages == "unlike":
        size = 2 * raw["stages"][0]["batch_size"]
        second = {"name": "b", "objective": "answer", "max_steps": 2, "batch_size": size}
        raw["stages"].append(second)
    with pytest.raises(ConfigError, match="needs a stage behind it with the same batch_size"):
        recipe_from_dict(raw)
    raw["stages"][0]["patience"] = None
    with pytest.raises(ConfigError, match="goes with patience"):
        recipe_from_dict(raw)


@pytest.mark.slow
def test_falling_loss_keeps_a_stage_going(tmp_path, monkeypatch):
    """Accuracy stands at zero for long, and then jumps."""
    raw = one_stage(tmp_path, max_steps=6, evaluate_every=1, patience=1, learning_rate=3e-3)
    monkeypatch.setattr("rim.train.validation.grade", lambda *args, **kwargs: False)
    folder = run(raw)
    found = [x[2] for x in losses(folder, "eval_loss")]
    falling = next((i for i in range(1, 6) if found[i] >= found[i - 1]), 5)
    assert falling > 1, "else the test tells nothing"
    assert ended(folder)[0] == falling + 1


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [5, 6, "end"])
def test_a_killed_stage_ends_where_it_would_have_ended(tmp_path, monkeypatch, stop_at):
    """Killed between two validations, before the last one, and after the checkpoint of the end."""
    scored(monkeypatch, RISING)
    raw = one_stage(tmp_path, max_steps=10, evaluate_every=1, patience=3)
    whole = run(raw | {"name": "whole"})
    step, finish = ReadoutTrainer.training_step, ReadoutTrainer._load_best_model

    def stop_in_step(self, *args, **kwargs):
        if self.state.global_step + 1 == stop_at:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    def stop_at_end(self):
        if stop_at == "end":
            raise KeyboardInterrupt
        return finish(self)

    monkeypatch.setattr(ReadoutTrainer, "training_step", stop_in_step)
    monkeypatch.setattr(ReadoutTrainer, "_load_best_model", stop_at_end)
    with pytest.raises(KeyboardInterrupt):
        run(raw)
    monkeypatch.setattr(ReadoutTrainer, "training_step", step)
    monkeypatch.setattr(ReadoutTrainer, "_load_best_model", finish)
    resumed = run(raw, resume=True)
    assert ended(resumed) == ended(whole)
    first, second = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_comparison_of_equal_steps_refuses_what_nobody_knows(tmp_path):
    from comparisons import settings_of

    settings = settings_of(tmp_path)
    name, method = next(iter(settings.methods.items()))
    stages = [stage.model_dump(exclude_unset=True) for stage in _recipe(settings, name).stages]
    stages[0]["patience"] = 2
    changed = method.model_copy(update={"recipe": method.recipe | {"stages": stages}})
    patient = settings.model_copy(update={"methods": settings.methods | {name: changed}})
    with pytest.raises(ConfigError, match=rf"{name} has patience in stage .*budget\.kind: tokens"):
        make_plan(patient)
    (stage,) = stages
    half = stage | {"max_steps": stage["max_steps"] // 2}
    handed_on = [half | {"unused_steps": "next_stage"}, half | {"name": "b", "patience": None}]
    changed = method.model_copy(update={"recipe": method.recipe | {"stages": handed_on}})
    assert make_plan(settings.model_copy(update={"methods": settings.methods | {name: changed}}))
    budget = settings.budget.model_copy(update={"exempt": {name: "ends when it has learned"}})
    assert make_plan(patient.model_copy(update={"budget": budget}))


def _recipe(settings, method):
    return next(run.recipe for run in make_plan(settings) if run.method == method)
