"""The command line as people use it: helps, the README's commands, errors without tracebacks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from conftest import tiny_model
from export_models import checked_in_process, make_run
from test_training import raw_recipe
from typer.testing import CliRunner

import rim.cli.common
from rim.cli import app
from rim.cli.help import add_command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    ["train"],
    ["ask"],
    ["eval"],
    ["answer"],
    ["bench"],
    ["compare"],
    ["controls"],
    ["analyze"],
    ["explain"],
    ["report"],
    ["demo"],
    ["export"],
    ["push"],
    ["gguf"],
    ["serve"],
    ["data"],
    ["data", "stats"],
    ["data", "validate"],
    ["data", "generate"],
]


def rim_command(*arguments: object, code: int = 0) -> str:
    # The library's own quieting would outlive the test.
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def rim_json(*arguments: object) -> Any:
    """What a command prints with --json: the whole of stdout is one document on one line."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def plain_console(monkeypatch):
    """Consoles are made at import; give each test one that writes to the captured streams."""
    from rich.console import Console

    monkeypatch.setattr(rim.cli.common, "console", Console(width=200))
    monkeypatch.setattr(rim.cli.common, "error_console", Console(width=200, stderr=True))
    # Warnings stay errors here; a user's terminal is spared them.
    monkeypatch.setattr(rim.cli.common, "quiet_libraries", lambda: None)


def lay_out(folder):
    """Recipes and data, as the README's commands find them."""
    (folder / "recipes").mkdir()
    for path in ROOT.glob("recipes/*.yaml"):
        (folder / "recipes" / path.name).write_text(path.read_text())
    rows = [
        {"question": f"{i}+1?", "steps": [f"{i}+1={i + 1}"], "answer": i + 1} for i in range(240)
    ]
    for name, chosen in {"my.jsonl": rows, "my_test.jsonl": rows[:5]}.items():
        (folder / name).write_text("\n".join(map(json.dumps, chosen)))
    gsm = {"question": "How many?", "answer": "One <<1+1=2>>2\n#### 2"}
    hard = {"input": "How many?", "target": 2.0}
    (folder / "data").mkdir()
    many = [gsm | {"question": f"How many {i}?"} for i in range(230)]
    (folder / "data/gsm8k_train.jsonl").write_text("\n".join(map(json.dumps, many)))
    (folder / "data/gsm8k_test.jsonl").write_text(json.dumps(gsm))
    (folder / "data/gsm_hard.jsonl").write_text(json.dumps(hard))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with recipes and data, which the command runs in."""
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIM_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command):
    output = rim_command(*command, "--help")
    assert "Usage" in output
    assert len(output.splitlines()) > 5


def test_a_parameter_that_nobody_described_is_named():
    def odd(run: Path, *, wordless: bool = False) -> None:
        """Do something odd."""

    with pytest.raises(LookupError, match="parameter wordless of `rim odd` has no line in Args or"):
        add_command(typer.Typer(), odd)


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = "import sys, rim.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def readme_commands(language: str) -> list[str]:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


SHORT = "--set validation.num_examples=4 --set validation.max_new_tokens=4"
for _stage in ("grounding", "refinement"):
    for _setting in ("batch_size=4", "micro_batch_size=4", "epochs=null", "max_steps=2"):
        SHORT += f" --set stages.{_stage}.{_setting}"


@pytest.mark.slow
def test_every_readme_command_runs(work, plain_tokenizer):
    tiny_model("qwen3", plain_tokenizer, max_positions=512).save_pretrained(work / "base")
    plain_tokenizer.save_pretrained(work / "base")
    make_run("gpt2", plain_tokenizer, work / "runs" / "demo-seed0" / "rim")
    commands = [line for line in readme_commands("bash") if line.startswith("rim ")]
    assert len(commands) >= 8
    for line in commands:
        line = line.replace("$RIM_DATA", str(work / "data")).replace(
            "Qwen/Qwen3-0.6B", str(work / "base")
        )
        if line.startswith("rim train"):
            line += f" {SHORT}"
        with checked_in_process():
            rim_command(*shlex.split(line)[1:])
    Path("exported/[v2].env").touch()
    listed = rim_command("push", "exported", "someone/tiny", "--dry-run")
    assert "model.safetensors" in listed and "Dry run: nothing sent" in listed
    assert "Left out, not part of the checked export: [v2].env" in listed
    results = sorted(p.name for p in work.glob("runs/*/evaluations/*.json"))
    tables = [f"my_test-k{count}.json" for count in (0, 2, 4)]
    assert results == ["gsm8k_test-k8.json", "gsm_hard-k8.json", *tables]


@pytest.mark.slow
def test_printed_commands_can_be_pasted(work, plain_tokenizer):
    make_run("gpt2", plain_tokenizer, work / "run")
    with checked_in_process():
        output = rim_command("export", "run", "--out", "my [v2] model")
    printed = [line for line in output.splitlines() if line]  # bars leave empty ones
    assert printed[-3].startswith("Exported: my [v2] model (")
    assert printed[-2:] == [
        "Serve it: rim serve 'my [v2] model'",
        "For llama.cpp: rim gguf 'my [v2] model' --out model.gguf",
    ]
    said = rim_command("push", "a [b]", "someone/tiny", code=2)
    assert "`rim export RUN --out 'a [b]'`" in said


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([\w-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.fixture
def trained(tmp_path):
    recipe = tmp_path / "r.yaml"
    raw = raw_recipe(tmp_path)
    for stage in raw["stages"]:
        stage["max_steps"] = 2
    recipe.write_text(yaml.safe_dump(raw))
    rim_command("train", recipe)
    return tmp_path / "runs" / "run"


@pytest.mark.slow
def test_ask_prints_every_block_and_json(trained):
    lines = rim_command("ask", trained, "1+2=", "--blocks", 3, "--all-blocks").strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["block 1", "block 2", "block 3"]
    lines = rim_command("ask", trained, "1+2=", "--blocks", "0,3").strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["0 blocks", "3 blocks"]
    both = ["--blocks", "1,2", "--all-blocks"]
    assert "goes with one number" in rim_command("ask", trained, "1+2=", *both, code=2)
    answers = json.loads(
        rim_command("ask", trained, "1+2=", "--json", "--samples", 2, "--temperature", 1)
    )
    assert len(answers) == 2
    assert answers[0]["blocks"] == 5


@pytest.mark.slow
def test_eval_never_overwrites(trained, tmp_path):
    data = tmp_path / "d.jsonl"
    data.write_text('{"question": "1+2=", "answer": 3}')
    rim_command("eval", trained, data)
    assert "exists; give --overwrite" in rim_command("eval", trained, data, code=2)
    rim_command("eval", trained, data, "--overwrite", "--blocks", 2)
    assert {p.name for p in (trained / "evaluations").iterdir()} == {
        "d-k5.json", "d-k5-wrong.jsonl", "d-k2.json", "d-k2-wrong.jsonl",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing.yaml"], "no such recipe: nothing.yaml"),
        (["ask", "nothing", "q"], "no such run or model folder: nothing"),
        (["eval", "nothing", "my.jsonl"], "no such run or model folder: nothing"),
        (["eval", "nothing", "none.jsonl"], "no such file: none.jsonl"),
        (["eval", "nothing", "my.jsonl", "--format", "gsm"], "unknown format 'gsm'"),
        (["export", "nothing", "--out", "out"], "no such run or model folder: nothing"),
        (["push", "nothing", "a/b"], "nothing is not an exported folder"),
        (["data", "stats", "none.jsonl"], "no such file: none.jsonl"),
        (["data", "generate", "sums", "--out", "s.jsonl"], "unknown task 'sums'"),
        (["data", "generate", "arithmetic", "--out", "my.jsonl"], "exists; give --overwrite"),
        (
            ["data", "generate", "graph_search", "--out", "g.jsonl", "--set", "max_hop=4"],
            "unknown key 'graph_search.max_hop'; did you mean 'max_hops'?",
        ),
        (["train", "recipes/my_data.yaml", "--set", "memory.blocks=0"], "got 0"),
        (["train", "recipes/my_data.yaml", "--set", "data.train.path=none.jsonl"], "no such file"),
        (["train", "recipes/my_data.yaml", "--set", "model.base=no/such"], "could not be loaded"),
    ],
)
def test_mistakes_end_in_one_sentence(work, arguments, message):
    output = rim_command(*arguments, code=2)
    assert message in output
    assert any(line.startswith("Error: ") for line in output.splitlines())
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("command", "target", "advice"),
    [
        (
            ["train", "r.yaml"],
            "rim.config.recipe_yaml.load_recipe",
            "The same command with --resume",
        ),
        (
            ["compare", "r.yaml"],
            "rim.study.compare.settings.load_comparison",
            "The same command continues.",
        ),
        (["demo"], "rim.study.demo.run_demo", "The same command continues."),
        (["bench"], "rim.study.bench.subject.scratch_subject", "Nothing was written."),
        (["data", "stats", "r.yaml"], "rim.data.sources.open_file", "Interrupted.\n"),
    ],
)
def test_an_interrupted_command_says_how_to_go_on(monkeypatch, command, target, advice):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(target, interrupt)
    output = rim_command(*command, code=130)
    assert advice in output
    assert ("--resume" in output) == (command[0] == "train")


def test_a_mistake_before_training_leaves_no_run_folder(work):
    rim_command("train", "recipes/my_data.yaml", "--set", "data.train.path=none.jsonl", code=2)
    rim_command("train", "recipes/my_data.yaml", "--set", "model.base=no/such", code=2)
    assert not (work / "runs" / "my_data").exists()


def test_data_validate_lists_problems_and_fails(work):
    (work / "bad.jsonl").write_text('{"question": "q", "answer": 1}\n{')
    output = rim_command("data", "validate", "bad.jsonl", code=1)
    assert "bad.jsonl, line 2: not valid JSON" in output
    assert "1 problem in 2 records" in output
    clean = rim_command("data", "validate", "my.jsonl")
    assert "240 records, no problems" in clean and "no steps" not in clean
    (work / "test.jsonl").write_text('{"input": "q", "target": 1}\n{"input": "r", "target": 2}')
    output = rim_command("data", "validate", "test.jsonl")
    assert "no steps in 2 of 2 records: fine for evaluation, not for training" in output
    assert "2 records, no problems" in output


def test_generated_files_are_read_by_the_other_commands(work):
    generate = ["data", "generate", "word_problems", "--out", "w.jsonl", "--num-examples", 30]
    rim_command(*generate, "--split", "test", "--set", "max_steps=3", "--set", "operations=[add]")
    rows = [json.loads(line) for line in Path("w.jsonl").read_text().splitlines()]
    assert {len(row["steps"]) for row in rows} == {2, 3}
    assert "30 records, no problems" in rim_command("data", "validate", "w.jsonl")
    assert "2: 15, 3: 15" in rim_command("data", "stats", "w.jsonl")
    assert "exists; give --overwrite" in rim_command(*generate, code=2)
    rim_command(*generate, "--overwrite", "--exclude", "w.jsonl", "--seed", 5)
    assert not {row["question"] for row in rows} & {
        json.loads(line)["question"] for line in Path("w.jsonl").read_text().splitlines()
    }


def test_the_help_of_generate_names_every_knob():
    from rim.config import DataSource, GeneratorConfig
    from rim.data.sources import GENERATORS

    text = rim_command("data", "generate", "--help")
    for task in GENERATORS:
        assert task in text
        settings = DataSource.model_fields[task].annotation
        for knob in settings.model_fields.keys() - GeneratorConfig.model_fields.keys():
            assert re.search(rf"\b{knob}\b", text), f"{task}: {knob}"
