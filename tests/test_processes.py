"""Two processes (gloo, on the CPU) train what one does with the same global batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import warm
import yaml
from conftest import stage, tiny_model
from test_training import QUIET, losses, raw_recipe, weights_of
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModelForCausalLM

from rim.config import ConfigError, DataSource
from rim.config.recipe_yaml import recipe_from_dict
from rim.data.sources import load_examples, write_file
from rim.infer.reasoner import load
from rim.train.arguments import check_trainer_settings, training_arguments
from rim.train.curriculum import train
from rim.train.processes import counted, micro_batch
from rim.train.run_folder import RunFolder
from rim.train.sharded_weights import refuse_stages, settle_sharding

#: Sums of float32 in another order, through ten steps of Adam.
TOLERANCE = {"rel": 2e-4, "abs": 1e-5}
SCRIPT = Path(__file__).with_name("two_processes.py")


def two_processes(folder: Path, jobs: list[dict], code: int = 0) -> str:
    """Both with what a launcher would tell them; as it does, one that dies ends the other."""
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    told |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    said = [folder / "said-0", folder / "said-1"]
    processes = []
    for rank, path in enumerate(said):
        env = os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, SCRIPT, file]
        with path.open("w") as output:
            processes.append(warm.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env))
    while None in (ended := [process.poll() for process in processes]):
        if any(ended):
            for process in processes:
                process.kill()
        time.sleep(0.05)
    text = "".join(path.read_text() for path in said)
    assert any(ended) == (code != 0), text[-3000:]
    return text


@pytest.mark.slow
def test_a_launcher_starts_them(tmp_path):
    """The command of docs/scaling.md, which two_processes does without."""
    raw = raw_recipe(tmp_path, name="launched")
    raw["stages"] = [raw["stages"][1] | {"max_steps": 1}]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    rim = warm.stand_in(["-c", "from rim.cli import app; app()"])
    result = warm.run([*launcher, "--nproc-per-node", "2", "--no-python", *rim, "train", path])
    assert result.returncode == 0, result.stderr[-3000:]
    assert "2 processes share every batch" in result.stdout
    assert RunFolder(tmp_path / "runs" / "launched").finished


def recipe(folder: Path, name: str, **changes) -> dict:
    """Two stages of epochs that do not divide by the batch; without dropout, whose draws are each
    process's own.
    """
    raw = raw_recipe(folder, name=name) | changes
    raw["data"]["train"]["arithmetic"]["num_examples"] = 29
    first, second = raw["stages"]
    first |= {"max_steps": None, "epochs": 2, "micro_batch_size": 2, "blind_readouts": 0.3}
    first |= {"blind_coin": "example", "trainer": {"logging_steps": 1}}
    raw["templates"]["answer"] = "#{answer}"  # a read-out that is blind needs an opening
    second |= {"dropout": 0.0, "trainer": {"logging_steps": 1}}
    raw["validation"]["batch_size"] = 3  # the last one has two examples
    return raw


@pytest.fixture(scope="module")
def trained(tmp_path_factory, plain_tokenizer):
    """Recipes by name, each trained by one process and by two; `killed` was killed and resumed."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield train_all(folder, plain_tokenizer)


def train_all(folder: Path, plain_tokenizer):
    tiny_model("llama", plain_tokenizer).save_pretrained(folder / "base")
    plain_tokenizer.save_pretrained(folder / "base")
    base = tiny_model("llama", plain_tokenizer).config
    base.tie_word_embeddings = False
    AutoModelForCausalLM.from_config(base).save_pretrained(folder / "untied")
    plain_tokenizer.save_pretrained(folder / "untied")
    lora, untied = (
        {"model": {"base": str(folder / name), "lora": {"rank": 4}}} for name in ("base", "untied")
    )
    recipes = {"full": recipe(folder, "full"), "lora": recipe(folder, "lora", **lora)}
    # Full tuning reads its examples from a file piece by piece; one process holds them in memory.
    data = recipes["full"]["data"]
    examples = load_examples(DataSource.model_validate(data["train"]))
    write_file(folder / "train.jsonl", examples)
    file = {"format": "jsonl", "path": str(folder / "train.jsonl"), "streaming": True}
    streamed = data | {"train": file}
    latent = raw_recipe(folder, name="latent", method="coconut")
    latent["stages"] = [
        {
            "name": "a",
            "objective": "remaining",
            "removed_steps": 1,
            "max_steps": 2,
            "batch_size": 4,
            "evaluate_every": 2,
        }
    ]
    recipes["latent"] = latent
    runs = {}
    for name, raw in recipes.items():
        runs[name] = train(recipe_from_dict(raw | {"name": f"{name}-one"}), console=QUIET)
    recipes["full"] = recipes["full"] | {"data": streamed}
    killed = [recipes[name] | {"name": f"{name}-killed"} for name in ("full", "lora")]
    whole = [{"recipe": raw | {"name": f"{name}-two"}} for name, raw in recipes.items()]
    two_processes(folder, [*whole, {"recipe": killed[0], "kill_at": ["grounding", 7, 1]}], 1)
    resumed = {"recipe": killed[0], "resume": True}
    two_processes(folder, [resumed, {"recipe": killed[1], "kill_at": ["refinement", 3, 0]}], 1)
    said = two_processes(folder, [{"recipe": killed[1], "resume": True}])
    recipes["untied"] = recipe(folder, "untied", **untied)
    runs["untied"] = train(recipe_from_dict(recipes["untied"]), console=QUIET)
    shard(folder, recipes)
    for kind in ("two", "killed", "sharded"):
        for name in recipes:
            runs[f"{name}-{kind}"] = RunFolder(folder / "runs" / f"{name}-{kind}")
    return runs, said


def shard(folder: Path, recipes: dict[str, dict]) -> None:
    """The recipes with weights in shards; the adapter's two stages are killed and resumed."""

    settings = {"fsdp": True, "fsdp_config": {"reshard_after_forward": True}}

    def sharded(name: str) -> dict:
        stages = [
            stage | {"micro_batch_size": 2, "trainer": stage["trainer"] | settings}
            for stage in recipes[name]["stages"]
        ]
        return recipes[name] | {"name": f"{name}-sharded", "stages": stages}

    full, untied, lora = (
        {"recipe": sharded(name), "shard": True} for name in ("full", "untied", "lora")
    )
    two_processes(folder, [full, untied, lora | {"kill_before_saving": ["grounding", 1]}], 1)
    lora["resume"] = True
    two_processes(folder, [lora | {"kill_at": ["refinement", 3, 0]}], 1)
    two_processes(folder, [lora])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, "two") for n in ("full", "lora", "latent")]
    + [(n, "sharded") for n in ("full", "lora", "untied")],
)
def test_two_processes_give_the_losses_of_one(trained, name, kind):
    runs, _ = trained
    one, two = runs[name], runs[f"{name}-{kind}"]
    for key in ("loss", "token_loss", "readout_last_nll", "eval_loss", "eval_token_loss"):
        first, second = losses(one, key), losses(two, key)
        if (name, kind) == ("lora", "sharded"):  # resumed, so it has steps since a checkpoint twice
            second = list({x[:2]: x for x in second}.values())
        assert [x[:2] for x in first] == [x[:2] for x in second]
        assert [x[2] for x in second] == pytest.approx([x[2] for x in first], **TOLERANCE)
    assert losses(one, "eval_accuracy") == losses(two, "eval_accuracy")
    first, second = weights_of(one), weights_of(two)
    for key in first:
        torch.testing.assert_close(first[key], second[key], atol=2e-4, rtol=1e-3)
    one_cost, two_cost = (json.loads(r.training_file.read_text())["total"] for r in (one, two))
    assert one_cost["steps"] == two_cost["steps"]
    assert one_cost["examples"] == two_cost["examples"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora"])
def test_two_processes_killed_and_resumed_are_never_stopped_bit_for_bit(trained, name):
    runs, said = trained
    whole, killed = runs[f"{name}-two"], runs[f"{name}-killed"]
    for key in ("loss", "eval_loss", "eval_accuracy"):
        # The last word on every step: a resumed run repeats the steps since its checkpoint.
        first, second = ({x[:2]: x[2] for x in losses(run, key)} for run in (whole, killed))
        assert first == second
    first, second = weights_of(whole), weights_of(killed)
    for key in first:
        assert torch.equal(first[key], second[key])
    assert "2 processes share every batch" in said
    assert said.count("Finished: ") == 1, "one process speaks"


@pytest.mark.slow
def test_one_process_loads_and_asks_what_two_trained(trained):
    runs, _ = trained
    folder = runs["lora-two"]
    assert load(folder.path).ask("1+2=", max_new_tokens=2).after_block == 5
    assert not list(folder.path.rglob("checkpoint*"))
    assert len(folder.metrics_file.read_text().splitlines()) == len(
        runs["lora"].metrics_file.read_text().splitlines()
    )


@pytest.mark.parametrize(
    ("batch_size", "micro", "processes", "expected"),
    [(8, "auto", 1, 8), (8, "auto", 2, 4), (8, 2, 2, 2), (8, "auto", 8, 1), (8, 1, 4, 1)],
)
def test_a_batch_is_shared(batch_size, micro, processes, expected):
    assert micro_batch(stage(batch_size=batch_size, micro_batch_size=micro), processes) == expected


@pytest.mark.parametrize(
    ("batch_size", "micro", "processes"), [(8, "auto", 3), (8, 4, 4), (2, 1, 4)]
)
def test_a_batch_that_cannot_be_shared_is_refused(batch_size, micro, processes):
    with pytest.raises(ConfigError, match=r"batch_size \d+ is not a multiple of \d processes"):
        micro_batch(stage(batch_size=batch_size, micro_batch_size=micro), processes)


@pytest.mark.parametrize("num_examples", [1, 7, 16, 29, 32])
def test_every_example_counts_once_an_epoch(monkeypatch, num_examples):
    monkeypatch.setenv("WORLD_SIZE", "2")
    settings = stage(batch_size=8, micro_batch_size=2)
    total = 0
    for step in range(-(-num_examples // 8), 2 * -(-num_examples // 8)):
        for rank in (0, 1):
            batches = [{"num_readouts": torch.ones(2)}] * 2
            total += sum(int(c.sum()) for c in counted(batches, step, num_examples, settings, rank))
    assert total == num_examples


def sharded_trainer(**changes) -> SimpleNamespace:
    """What `settle_sharding` looks at of a trainer."""
    bf16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(mixed_precision_policy=bf16))
    parts = {
        "is_fsdp_enabled": True,
        "is_deepspeed_enabled": False,
        "args": SimpleNamespace(fsdp=True),
        "accelerator": SimpleNamespace(state=state),
        "model": object(),
    }
    return SimpleNamespace(**parts | changes)


def test_fsdp_that_would_not_shard_is_refused():
    trainer = sharded_trainer()
    settle_sharding(trainer, feeds_back=False)
    policy = trainer.accelerator.state.fsdp_plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    with pytest.raises(ConfigError, match="feeds hidden states back"):
        settle_sharding(trainer, feeds_back=True)
    with pytest.raises(ConfigError, match="4 bits"):
        settle_sharding(sharded_trainer(model=SimpleNamespace(is_quantized=True)), False)
    with pytest.raises(ConfigError, match="shards nothing here"):
        settle_sharding(sharded_trainer(is_fsdp_enabled=False), feeds_back=False)
    with pytest.raises(ConfigError, match="not of the launcher"):
        settle_sharding(sharded_trainer(args=SimpleNamespace(fsdp=None)), feeds_back=False)


def test_settings_of_fsdp_that_fail_are_refused(monkeypatch):
    def fsdp(config=None, **changes):
        settings = {"fsdp": True, "fsdp_config": config} | changes
        return stage(micro_batch_size=1, trainer=settings)

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError, match="torchrun"):
        refuse_stages([fsdp()])
    monkeypatch.setenv("LOCAL_RANK", "0")
    given = {"reshard_after_forward": True}
    refuse_stages([fsdp(given)])
    with pytest.raises(ConfigError, match=r"'other'.*every stage or in none"):
        refuse_stages([fsdp(), stage(name="other")])
    for config, problem in [
        ({"version": 1}, "version 2 alone"),
        ({"fsdp_activation_checkpointing": True}, "draws dropout anew"),
        ({"state_dict_type": "FULL_STATE_DICT"}, "stay in shards"),
        ("fsdp.json", "into the recipe"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            refuse_stages([fsdp(config)])
    with pytest.raises(ConfigError, match="state micro_batch_size"):
        refuse_stages([stage(trainer={"fsdp": True})])
    with pytest.raises(ConfigError, match="eval_on_start"):
        refuse_stages([fsdp(eval_on_start=True)])


def test_a_recipe_is_as_it_was_after_its_settings_were_tried(monkeypatch):
    """A resumed run is compared with it; transformers writes defaults into what it gets."""
    monkeypatch.setattr("rim.train.arguments.refuse_stages", lambda stages: None)
    settings = stage(trainer={"fsdp": True, "fsdp_config": {"reshard_after_forward": True}})
    before = settings.model_dump()
    check_trainer_settings([settings])
    assert settings.model_dump() == before


def test_one_process_trains_on_the_first_of_several_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.TrainingArguments.n_gpu", property(lambda self: self._n))
    monkeypatch.setattr("transformers.TrainingArguments._n", 2, raising=False)
    settings = recipe_from_dict(raw_recipe(tmp_path))
    arguments = training_arguments(settings, settings.stages[0], 0, tmp_path, 64)
    assert arguments._n_gpu == 1
    monkeypatch.undo()
    assert arguments.n_gpu == 1
    assert arguments.train_batch_size == 8
