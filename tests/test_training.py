"""The trainer and the curriculum: equivalences, resuming, divergence, run folders."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from rich.console import Console
from transformers import TrainingArguments

import rim.train.trainer
from rim.config import ConfigError
from rim.config.recipe_yaml import load_recipe, recipe_from_dict
from rim.config.stages import TRAINER_OWN
from rim.core.losses import ReadoutLoss
from rim.data.examples import DataError
from rim.infer.decode import Generated
from rim.infer.reasoner import load
from rim.train.arguments import _free_settings, training_arguments
from rim.train.curriculum import train
from rim.train.log_window import readout_metrics, token_loss, without
from rim.train.seeds import stage_seed
from rim.train.trainer import TrainingDivergedError
from rim.train.validation import validation_score

QUIET = Console(quiet=True)


def raw_recipe(tmp_path, **changes):
    raw = {
        "name": "run",
        "method": "rim",
        "runs_dir": str(tmp_path / "runs"),
        "data": {
            "train": {"format": "arithmetic", "arithmetic": {"num_examples": 64}},
            "validation": {
                "format": "arithmetic",
                "arithmetic": {"num_examples": 8, "split": "validation"},
            },
        },
        "model": {
            "scratch": {"layers": 2, "width": 32, "heads": 2, "vocab_size": 16, "alphabet": "data"},
            "tuning": "full",
        },
        "memory": {"blocks": 5},
        "templates": {"question": "{question}", "answer": "{answer}", "step_separator": ";"},
        "stages": [
            {
                "name": "grounding",
                "objective": "steps",
                "alignment": "own_step",
                "weighting": "anneal_relative",
                "max_steps": 6,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "evaluate_every": 3,
            },
            {
                "name": "refinement",
                "objective": "answer",
                "weighting": "later_more",
                "max_steps": 4,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "dropout": 0.1,
                "evaluate_every": 2,
            },
        ],
        "validation": {"num_examples": 8, "max_new_tokens": 4},
    }
    return raw | changes


def run(raw, **options):
    return train(recipe_from_dict(raw), console=QUIET, **options)


def losses(folder, key="loss"):
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["stage"], r["step"], r[key]) for r in records if key in r]


def weights_of(folder):
    return load(folder.path).model.state_dict()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The plain recipe and its run, trained once for the tests that only read them."""
    raw = raw_recipe(tmp_path_factory.mktemp("finished"))
    return raw, run(raw)


@pytest.fixture(scope="module", params=["full", "lora"])
def never_stopped(request, finished, plain_tokenizer, tmp_path_factory):
    """A recipe and its run, of both kinds of tuning."""
    if request.param == "full":
        return finished
    folder = tmp_path_factory.mktemp("lora")
    tiny_model("llama", plain_tokenizer).save_pretrained(folder / "base")
    plain_tokenizer.save_pretrained(folder / "base")
    raw = raw_recipe(folder, model={"base": str(folder / "base"), "lora": {"rank": 4}})
    return raw, run(raw)


@pytest.mark.slow
def test_gradient_accumulation_changes_nothing(tmp_path):
    whole, split = raw_recipe(tmp_path, name="whole"), raw_recipe(tmp_path, name="split")
    for stage in (*whole["stages"], *split["stages"]):
        stage["dropout"] = 0.0  # dropout draws differ between batch shapes
    for stage in split["stages"]:
        stage["micro_batch_size"] = 1
    first, second = weights_of(run(whole)), weights_of(run(split))
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=2e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_seed_another(finished, tmp_path):
    one, two = finished[1], run(raw_recipe(tmp_path, name="b"))
    assert losses(one) == losses(two)
    assert losses(run(raw_recipe(tmp_path, name="c", seed=1))) != losses(one)


def test_stages_of_different_seeds_draw_apart():
    assert [stage_seed(seed, 0) for seed in range(4)] == [0, 1, 2, 3]
    later = [stage_seed(seed, index) for seed in range(50) for index in range(1, 20)]
    assert len({*later, *range(50)}) == len(later) + 50
    assert all(0 <= seed < 2**31 for seed in later)
    # Recorded runs depend on these: another hash would be another experiment.
    assert (stage_seed(0, 1), stage_seed(1, 1)) == (778162986, 17120840)


@pytest.mark.slow
def test_bf16_stages_run_on_a_processor_without_gpu(tmp_path):
    raw = raw_recipe(tmp_path)
    raw["stages"] = [raw["stages"][0] | {"max_steps": 2, "evaluate_every": 2}]
    plain = losses(run(raw))
    raw["stages"][0]["bf16"] = True
    mixed = losses(run(raw | {"name": "mixed"}))
    assert plain != mixed
    assert plain[0][2] == pytest.approx(mixed[0][2], rel=0.02)


@pytest.mark.parametrize(
    ("features", "dtype", "mixed"),
    [
        ({"avx2": True, "avx512_bf16": False}, "float32", False),
        ({"avx512_bf16": True}, "float32", True),
        ({"avx512_bf16": True}, "bfloat16", False),
        ({"avx512_bf16": True}, "auto", False),  # no model is there to tell
    ],
)
def test_automatic_bf16_is_used_where_the_processor_multiplies_it(
    tmp_path, monkeypatch, features, dtype, mixed
):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    raw = raw_recipe(tmp_path)
    raw["stages"][0]["bf16"] = "auto"
    raw["model"]["dtype"] = dtype
    recipe = recipe_from_dict(raw)
    assert training_arguments(recipe, recipe.stages[0], 0, tmp_path, 64).bf16 is mixed
    if dtype == "auto":
        of_model = (recipe, recipe.stages[0], 0, tmp_path, 64)
        assert training_arguments(*of_model, weights="float32").bf16 is True
        raw["stages"][0]["bf16"] = True
        recipe = recipe_from_dict(raw)
        with pytest.raises(ConfigError, match="but they are bfloat16"):
            training_arguments(recipe, recipe.stages[0], 0, tmp_path, 64, weights="bfloat16")


def test_the_last_readout_is_that_of_the_examples_that_count():
    """A filled-up example with more read-outs than all others would make it 0 / 0."""
    tokens_BR = torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    loss = ReadoutLoss(torch.zeros(2), 3 * tokens_BR, tokens_BR, tokens_BR)
    counted_B = torch.tensor([True, False])
    window = [(without(loss, counted_B), torch.ones(2, 3) * counted_B[:, None])]
    found = readout_metrics(window, lambda sums: sums, lambda number: number)
    assert found["readout_last_nll"] == 3.0 and found["token_loss"] == pytest.approx(3.0)


def test_the_home_folder_is_the_same_to_recipes_and_to_transformers(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = recipe_from_dict(raw_recipe(tmp_path) | {"runs_dir": "~/runs"})
    assert recipe.runs_dir == str(tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("interrupt_at", [("grounding", 5), ("refinement", 3)])
def test_resuming_gives_the_same_losses_as_never_stopping(
    never_stopped, tmp_path, interrupt_at, monkeypatch
):
    raw, whole = never_stopped
    stopped = raw | {"runs_dir": str(tmp_path / "runs")}

    original = rim.train.trainer.ReadoutTrainer.training_step

    def stop(self, *args, **kwargs):
        if self.stage.name == interrupt_at[0] and self.state.global_step + 1 == interrupt_at[1]:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(rim.train.trainer.ReadoutTrainer, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    monkeypatch.setattr(rim.train.trainer.ReadoutTrainer, "training_step", original)
    told = io.StringIO()
    resumed = train(recipe_from_dict(stopped), resume=True, console=Console(file=told, width=200))
    done = "Stage 1 of 2, grounding: done before" in told.getvalue()
    assert done is (interrupt_at[0] == "refinement")
    assert "continues after step" in told.getvalue()
    for key in ("eval_loss", "eval_accuracy"):
        # The last word on every step: a resumed run repeats the steps since its checkpoint.
        assert {x[:2]: x[2] for x in losses(resumed, key)} == {
            x[:2]: x[2] for x in losses(whole, key)
        }
    first, second = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_other_settings_reach_the_trainer(tmp_path, monkeypatch):
    raw = raw_recipe(tmp_path)
    raw["stages"] = [raw["stages"][0] | {"max_steps": 2, "evaluate_every": 1}]
    plain = weights_of(run(raw))
    raw["stages"][0]["trainer"] = {"optim": "sgd", "logging_steps": 2}
    folder = run(raw | {"name": "sgd"})
    assert [step for _, step, _ in losses(folder)] == [2]
    changed = weights_of(folder)
    assert not all(torch.equal(plain[name], changed[name]) for name in plain)
    assert load_recipe(folder.config_file).stages[0].trainer == raw["stages"][0]["trainer"]


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        (
            {"learning_rate": 1.0},
            r"stages\.refinement\.trainer: 'learning_rate'.*use learning_rate of the",
        ),
        ({"per_device_train_batch_size": 1}, r"use batch_size and micro_batch_size"),
        ({"data_seed": 1}, "use seed of the recipe"),
        ({"label_names": ["x"]}, "leave it out"),
        ({"adam_epsilom": 1.0}, r"stage 'refinement'.*'adam_epsilom'.*did you mean 'adam_epsilon'"),
        ({"optim": "adamm"}, r"stage 'refinement'.*refuses.*adamm"),
    ],
)
def test_settings_that_cannot_be_passed_on_are_refused_at_once(tmp_path, trainer, message):
    raw = raw_recipe(tmp_path)
    raw["stages"][1]["trainer"] = trainer
    with pytest.raises(ConfigError, match=message):
        run(raw)
    assert not (tmp_path / "runs").exists()


def test_every_setting_of_ours_is_refused_in_the_trainers(tmp_path):
    raw = raw_recipe(tmp_path)
    recipe = recipe_from_dict(raw)
    arguments = training_arguments(recipe, recipe.stages[0], 0, tmp_path, 64)
    plain = TrainingArguments(use_cpu=True)
    free = {*_free_settings(1), "do_eval"}  # do_eval follows eval_strategy and does nothing
    for field in dataclasses.fields(TrainingArguments):
        ours = getattr(arguments, field.name) != getattr(plain, field.name)
        if ours and field.name not in free:
            assert field.name in TRAINER_OWN, field.name


@pytest.mark.slow
def test_a_loss_that_turns_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    original = rim.train.trainer.ReadoutTrainer.compute_loss

    def poisoned(self, model, *args, **kwargs):
        loss = original(self, model, *args, **kwargs)
        return loss * float("nan") if model.training and self.state.global_step == 4 else loss

    monkeypatch.setattr(rim.train.trainer.ReadoutTrainer, "compute_loss", poisoned)
    with pytest.raises(
        TrainingDivergedError, match=r"became nan at step 5 .*'grounding'.*checkpoint-3"
    ):
        run(raw_recipe(tmp_path))
    from safetensors.torch import load_file

    kept = tmp_path / "runs/run/stages/01-grounding/checkpoint-3/model.safetensors"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(kept).values())
    assert not (tmp_path / "runs/run/model").exists()


@pytest.mark.slow
def test_weights_that_an_update_broke_are_not_kept(tmp_path, monkeypatch):
    """The loss of the step was finite; only validation sees what it left behind."""
    original = rim.train.trainer.ReadoutTrainer.compute_loss

    def poisoned(self, model, *args, **kwargs):
        found = original(self, model, *args, **kwargs)
        if model.training:
            return found
        loss, outputs = found
        return loss * float("nan"), outputs

    monkeypatch.setattr(rim.train.trainer.ReadoutTrainer, "compute_loss", poisoned)
    with pytest.raises(TrainingDivergedError, match=r"validation loss became nan after step 3"):
        run(raw_recipe(tmp_path))
    assert not list(tmp_path.glob("runs/run/stages/*/checkpoint-*"))


@pytest.mark.parametrize(
    ("trainer", "message"), [({"optim": "adamw_8bit"}, "bitsandbytes"), ({"optim": "x"}, "optim")]
)
def test_an_optimizer_that_is_not_there_is_refused_before_training(tmp_path, trainer, message):
    raw = raw_recipe(tmp_path)
    raw["stages"][-1]["trainer"] = trainer
    with pytest.raises(ConfigError, match=f"transformers refuses its trainer settings.*{message}"):
        run(raw)


def test_a_validation_answer_that_was_cut_off_is_wrong(tmp_path, monkeypatch, encoder, examples):
    def fake(model, encoder, questions, **options):
        assert options["blocks"] == [1, 2, 3]
        ends = (True, False, True)
        return [
            [Generated(1, f"#### {e.answer}", (1,), -1.0, end)]
            for e, end in zip(examples, ends, strict=True)
        ]

    monkeypatch.setattr("rim.train.validation.generate", fake)
    layouts = [SimpleNamespace(trunk=SimpleNamespace(num_blocks=k)) for k in (1, 2, 3)]
    recipe = recipe_from_dict(raw_recipe(tmp_path))
    score = validation_score(recipe, encoder, examples, layouts)
    assert score(None) == {"accuracy": pytest.approx(2 / 3)}


@pytest.mark.slow
def test_a_run_folder_is_never_overwritten(tmp_path):
    raw = raw_recipe(tmp_path)
    folder = run(raw)
    before = folder.config_file.read_bytes()
    for resume in (False, True):
        with pytest.raises(ConfigError, match="is finished"):
            run(raw, resume=resume)
    shutil.rmtree(folder.model_dir)
    with pytest.raises(ConfigError, match="exists; continue it with --resume"):
        run(raw)
    with pytest.raises(ConfigError, match=r"differs from this recipe \(seed: 0, now 5\)"):
        run(raw | {"seed": 5}, resume=True)
    with pytest.raises(ConfigError, match="nothing to resume"):
        run(raw | {"name": "other"}, resume=True)
    assert folder.config_file.read_bytes() == before


@pytest.mark.slow
def test_resuming_with_other_data_or_a_broken_checkpoint(tmp_path, monkeypatch):
    raw = raw_recipe(tmp_path)
    original = rim.train.trainer.ReadoutTrainer.training_step

    def stop(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(rim.train.trainer.ReadoutTrainer, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        run(raw)
    monkeypatch.setattr(rim.train.trainer.ReadoutTrainer, "training_step", original)
    environment_file = tmp_path / "runs/run/environment.json"
    good = environment_file.read_text()
    environment_file.write_text(json.dumps(json.loads(good) | {"data": {}}))
    with pytest.raises(ConfigError, match="data changed"):
        run(raw, resume=True)
    environment_file.write_text(good)
    # Killed while it was being written: no trainer state yet.
    (tmp_path / "runs/run/stages/01-grounding/checkpoint-5").mkdir()
    folder = run(raw, resume=True)
    assert len(json.loads(folder.environment_file.read_text())["resumed"]) == 1


def test_adapter_targets_that_do_not_exist_leave_no_run_folder(tmp_path, plain_tokenizer):
    tiny_model("llama", plain_tokenizer).save_pretrained(tmp_path / "base")
    plain_tokenizer.save_pretrained(tmp_path / "base")
    raw = raw_recipe(tmp_path)
    raw["model"] = {"base": str(tmp_path / "base"), "lora": {"targets": ["c_attn"]}}
    with pytest.raises(ConfigError, match=r"model\.lora does not fit"):
        run(raw)
    assert not (tmp_path / "runs/run").exists()


def test_a_run_folder_tells_everything(finished):
    raw, folder = finished
    assert load_recipe(folder.config_file) == recipe_from_dict(raw)
    environment = json.loads(folder.environment_file.read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["seed"] == 0
    assert set(environment["data"]) == {"train", "validation"}
    kinds = {
        key for line in folder.metrics_file.read_text().splitlines() for key in json.loads(line)
    }
    assert {"loss", "token_loss", "eval_loss", "eval_token_loss", "eval_accuracy"} <= kinds
    assert {"readout_last_nll", "learning_rate"} <= kinds
    assert not list(folder.path.rglob("checkpoint-*")), "finished stages keep their best model only"


@pytest.mark.slow
def test_the_loss_that_is_shown_is_the_mean_per_token(tmp_path):
    raw = raw_recipe(tmp_path)
    raw["stages"] = [raw["stages"][0] | {"weighting": "ones", "max_steps": 3, "evaluate_every": 1}]
    console = Console(record=True, width=200, file=io.StringIO())
    folder = train(recipe_from_dict(raw), console=console)
    shown = [float(x) for x in re.findall(r"loss (\d+\.\d+) a token", console.export_text())]
    per_token = [value for *_, value in losses(folder, "eval_token_loss")]
    assert shown == [pytest.approx(value, abs=5e-4) for value in per_token]
    (vocabulary,) = {len(load(folder.path).encoder.tokenizer)}
    # An untrained model is about as good as chance, whatever the number of read-outs.
    sums = [value for *_, value in losses(folder)]
    first = losses(folder, "token_loss")[0][2]
    assert first == pytest.approx(math.log(vocabulary), rel=0.1)
    # Without annealing all weights are one: the sum over an example's target tokens, exactly.
    cost = json.loads((folder.path / "training.json").read_text())["total"]
    tokens = cost["target_tokens"] / cost["examples"]
    assert sum(sums) / 3 == pytest.approx(
        tokens * sum(value for *_, value in losses(folder, "token_loss")) / 3, rel=0.02
    )


def test_readouts_that_are_withdrawn_leave_the_shown_loss():
    loss = ReadoutLoss(
        torch.zeros(1), torch.tensor([[50.0, 4.0]]), torch.tensor([[5.0, 2.0]]), torch.zeros(1, 2)
    )
    assert token_loss([(loss, torch.tensor([[1.0, 1.0]]))]) == pytest.approx(54 / 7)
    assert token_loss([(loss, torch.tensor([[0.0, 1.0]]))]) == 2.0


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_not_the_last(tmp_path, monkeypatch):
    scores = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.2}
    raw = raw_recipe(tmp_path)
    raw["stages"] = [raw["stages"][0] | {"max_steps": 4, "evaluate_every": 1}]
    kept = {}

    def evaluate(self, *args, **kwargs):
        step = self.state.global_step
        kept[step] = {n: p.detach().clone() for n, p in self.model.state_dict().items()}
        metrics = {"eval_loss": 1.0, "eval_accuracy": scores[step]}
        return metrics | {"eval_selection": metrics["eval_accuracy"]}

    monkeypatch.setattr(rim.train.trainer.ReadoutTrainer, "evaluate", evaluate)
    final = weights_of(run(raw))
    assert all(torch.equal(final[name], kept[2][name]) for name in final)
    assert not all(torch.equal(final[name], kept[4][name]) for name in final)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "steps"), [(2, [2, 4, 5]), (5, [5]), (100, [5])])
def test_the_last_step_is_validated_once_whatever_the_interval(tmp_path, every, steps):
    raw = raw_recipe(tmp_path)
    raw["stages"] = [raw["stages"][0] | {"max_steps": 5, "evaluate_every": every}]
    assert [step for _, step, _ in losses(run(raw), "eval_accuracy")] == steps


def test_equal_accuracy_is_decided_by_loss(finished):
    _, folder = finished
    selections = losses(folder, "eval_selection")
    for (*_, selection), (*_, accuracy), (*_, loss) in zip(
        selections, losses(folder, "eval_accuracy"), losses(folder, "eval_loss"), strict=True
    ):
        assert selection == pytest.approx(accuracy - 1e-6 * loss, abs=1e-9)


def test_training_examples_that_do_not_fit_are_named(tmp_path):
    raw = raw_recipe(tmp_path)
    raw["model"]["scratch"]["max_positions"] = 20
    with pytest.raises(
        DataError, match=r"arithmetic train \d+: too long, needs \d+ positions, the model has 20"
    ):
        run(raw)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", "stages/01-grounding/final"])
def test_a_run_can_start_from_another_run_or_its_first_stage(finished, tmp_path, part):
    _, first = finished
    raw = raw_recipe(tmp_path, name="second", method="direct")
    raw["model"] = {"base": str(first.path / part), "tuning": "full"}
    raw["stages"] = [{"name": "a", "objective": "answer", "max_steps": 2, "batch_size": 4}]
    reasoner = load(run(raw).path)
    assert reasoner.trained_blocks == 0
    assert reasoner.ask("1+2=", max_new_tokens=3).after_block == 0


@pytest.mark.slow
def test_learning_rate_warms_up_and_falls(tmp_path):
    raw = raw_recipe(tmp_path)
    raw["stages"] = [
        raw["stages"][0]
        | {"max_steps": 8, "warmup": 0.25, "scheduler": "cosine_with_min_lr", "evaluate_every": 1}
    ]
    rates = [rate for *_, rate in losses(run(raw), "learning_rate")]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] < 1e-3
    assert 1e-4 <= rates[-1] < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_examples", "micro", "epochs", "steps"),
    # Batches of 8. The examples do not divide into them: 20 / 8 * 1.5 is less than four steps, but
    # an epoch has three.
    [(20, 8, 1.5, 5), (20, 4, 0.3, 1), (21, 2, 2, 6), (17, 4, 1, 3), (16, 4, 1.25, 3)],
)
def test_epochs_are_as_many_steps_as_the_trainer_takes(
    tmp_path, num_examples, micro, epochs, steps
):
    raw = raw_recipe(tmp_path)
    raw["data"]["train"]["arithmetic"]["num_examples"] = num_examples
    changes = {"max_steps": None, "epochs": epochs, "micro_batch_size": micro}
    raw["stages"] = [raw["stages"][0] | changes | {"evaluate_every": 100}]
    recipe = recipe_from_dict(raw)
    folder = train(recipe, console=QUIET)
    taken = json.loads(folder.training_file.read_text())["total"]["steps"]
    assert taken == steps == recipe.stages[0].optimizer_steps(num_examples)
