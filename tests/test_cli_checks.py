"""Mistakes on the command line, found before torch is imported; machine output; help texts."""

from __future__ import annotations

import http.server
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from export_models import make_run
from rich.console import Console
from test_cli import ROOT, lay_out, plain_console, rim_command, rim_json, work  # noqa: F401

import rim.cli.checks as checks
import rim.cli.common as common
import rim.cli.hub as hub
from rim import __version__
from rim.cli import app
from rim.config import ConfigError
from rim.config.missing import no_such
from rim.deploy.serve import check_port

# Runs commands one after the other, and says how each ended, what it wrote, and what had been
# imported by then.
WATCHED = """
import contextlib, io, json, sys
from rim.cli import app
ended = {}
for command in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(command.split(), prog_name="rim")
        except SystemExit as end:
            code = end.code
    heavy = [name for name in ("torch", "transformers") if name in sys.modules]
    ended[command] = [code, heavy, err.getvalue()]
json.dump(ended, sys.stdout)
"""
MISTAKES = (
    "train nope.yaml",
    "train recipes/gsm8k_tiny.yaml --set memry.blocks=3",
    "train recipes/my_data.yaml --set data.train.path=nope.jsonl",
    "train recipes/my_data.yaml --set model.base=./no/such/folder",
    "train recipes/my_data.yaml --set data.train.path=my.jsonl --set data.holdout=9999",
    "train recipes/my_data.yaml --set data.train.path=my.jsonl --set data.train.columns.answer=x",
    "train recipes/my_data.yaml --set report_to=[wandbb]",
    "train recipes/compare_arithmetic.yaml",
    "compare nope.yaml",
    "compare recipes/gsm8k_tiny.yaml",
    "compare recipes/compare_arithmetic.yaml --set methods.rim.memory.blcks=3",
    "compare recipes/compare_arithmetic.yaml --only nope",
    "ask nope q",
    "ask RUN q --device gpu",
    "ask RUN q --blocks 999999999999",
    "ask RUN q --samples 3",
    "eval nope my.jsonl",
    "eval RUN nope.jsonl",
    "eval RUN my.jsonl --blocks 0,two",
    "eval RUN my.jsonl --out /dev/stdout",
    "controls nope my.jsonl",
    "controls RUN my.jsonl --device cuda:x",
    "bench --methods nope",
    "bench --blocks 0",
    "bench --model nope",
    "demo --out .",
    "data stats nope.jsonl",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, plain_tokenizer):
    """A tiny trained model, with room for 256 positions."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    make_run("gpt2", plain_tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def ended(run, tmp_path_factory):
    """How every mistake ended, all in one process: it starts once."""
    folder = tmp_path_factory.mktemp("mistakes")
    lay_out(folder)
    commands = [command.replace("RUN", str(run)) for command in MISTAKES]
    environment = {"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}
    environment["RIM_DATA"] = str(folder / "data")
    process = subprocess.run(
        [sys.executable, "-c", WATCHED],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=os.environ | environment,
    )
    return dict(zip(MISTAKES, json.loads(process.stdout).values(), strict=True))


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_answered_before_torch_is_imported(ended, command):
    code, heavy, written = ended[command]
    assert (code, heavy) == (2, [])
    assert written.startswith("Error: ") and len(written.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("ask RUN q --blocks 999999999999", "the model has 512 positions, give at most 127"),
        ("ask RUN q --blocks 200,2", "--blocks 200 is too many"),
        ("ask RUN q --device gpu", "got 'gpu'; a GPU of NVIDIA or AMD is cuda"),
        ("ask RUN q --device cuda:99", "there is no device 'cuda:99' here"),
        ("train recipes/compare_arithmetic.yaml", "use `rim compare recipes/compare_arithmetic"),
        ("compare recipes/gsm8k_tiny.yaml", "use `rim train recipes/gsm8k_tiny.yaml`"),
        ("train recipes/my_data.yaml --set report_to=[wandbb]", "did you mean 'wandb'?"),
        ("train recipes/my_data.yaml --set runs_dir=my.jsonl/runs", "is a file"),
        ("train recipes/my_data.yaml --set model.base=a/b/c", "there is no such folder"),
        ("eval RUN my.jsonl --out .", "is not a regular file"),
        ("controls RUN my.jsonl --blocks 0", "--blocks takes a number from 1"),
        ("train recipes/my_data.yaml --resume", "nothing to resume"),
        ("train recipes/my_dta.yaml", "did you mean recipes/my_data.yaml?"),
        ("eval RUN my.jsonnl", "no such file: my.jsonnl; did you mean my.jsonl?"),
        ("ask no/run q", "`rim demo` make runs"),
    ],
)
def test_the_sentence_says_what_to_do(work, run, command, message):  # noqa: F811
    output = rim_command(*command.replace("RUN", str(run)).split(), code=2)
    assert message in output and "Repo id" not in output


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="report_to: wandb is not installed; `pip install wandb`"):
        checks._check_trackers(["wandb"])
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: name == "tensorboardX")
    checks._check_trackers(["tensorboard", "all"])


def test_every_tracker_that_transformers_knows_may_be_named():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    # Other versions of transformers may know fewer.
    assert set(INTEGRATION_TO_CALLBACK) <= set(checks.TRACKERS)


def test_broken_model_files_are_named(run, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    weights, described = broken / "model/model.safetensors", broken / "model/rim.json"
    words = broken / "model/tokenizer.json"
    intact = words.read_text()
    words.write_text(intact[: len(intact) // 2])
    said = " ".join(rim_command("ask", broken, "q", code=2).split())
    assert "broken/model could not be loaded: " in said
    words.write_text(intact)
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "a file seems to be damaged" in rim_command("ask", broken, "q", code=2)
    good = json.loads(described.read_text())
    for text, message in (
        ("{", "rim.json is broken"),
        ("[]", "'prompt_format' is missing"),
        (json.dumps(good | {"model": 3}), "'model' is missing"),
        (json.dumps(good | {"prompt_format": {"metod": "rim"}}), "prompt_format.metod"),
    ):
        described.write_text(text)
        assert message in rim_command("ask", broken, "q", code=2)


def test_models_that_state_no_positions_have_a_bound_too(run, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "model/config.json").write_text("{}")
    checks.check_model(copy, [checks.MOST_BLOCKS])
    with pytest.raises(ConfigError, match="no question needs more, give at most 10000"):
        checks.check_model(copy, [checks.MOST_BLOCKS + 1])


def test_results_go_to_regular_files_only(tmp_path):
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "link.json").symlink_to(tmp_path / "old.json")
    for path in (tmp_path, tmp_path / "link.json", Path(os.devnull)):
        with pytest.raises(ConfigError, match="is not a regular file"):
            checks.check_target(path)
    with pytest.raises(ConfigError, match="is a file"):
        checks.check_target(tmp_path / "old.json" / "new.json")
    checks.check_target(tmp_path / "old.json")
    checks.check_target(tmp_path / "a" / "b" / "new.json", overwrite=False)
    with pytest.raises(ConfigError, match="exists; give --overwrite"):
        checks.check_target(tmp_path / "old.json", overwrite=False)


def test_what_the_file_system_refuses_is_no_traceback(capsys):
    with pytest.raises(typer.Exit), common.clear_errors():
        raise PermissionError(13, "Permission denied", "runs/x")
    with pytest.raises(FileNotFoundError), common.clear_errors():
        raise FileNotFoundError(2, "No such file", "ours.txt")


# --- the hub -------------------------------------------------------------------------------------


@pytest.fixture
def online(monkeypatch):
    """The hub may be asked, as far as its client is concerned; nothing is cached."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return huggingface_hub


def test_a_hub_out_of_reach_is_one_sentence(online, monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda url: False)
    with pytest.raises(ConfigError, match=r"the hub \(http.*\) does not answer; go online"):
        hub.check_base("someone/model")
    asked = []
    monkeypatch.setattr(hub, "reachable", lambda url: asked.append(url) or True)
    hub.check_base("someone/model", "v1")
    assert asked[0].endswith("/someone/model/resolve/v1/config.json")


def test_cached_files_are_used_where_the_hub_is_out_of_reach(online, monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda url: False)
    monkeypatch.setattr(online, "try_to_load_from_cache", lambda *_, **__: "config.json")
    hub.check_base("someone/model")
    assert online.constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.slow
def test_a_server_that_answers_anything_is_reachable(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    handler = type("Refusing", (http.server.BaseHTTPRequestHandler,), {"log_message": print})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert hub.reachable(f"http://127.0.0.1:{server.server_port}/x")  # 501: no HEAD here
        server.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not hub.reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/x")
    assert not hub.reachable(f"http://127.0.0.1:{server.server_port}/x")


# --- what is printed -----------------------------------------------------------------------------


def test_a_bar_leaves_the_screen_when_the_work_fails():
    shown = io.StringIO()
    with pytest.raises(ConfigError), common.progress("answering", 3, Console(file=shown)):
        raise ConfigError("no")
    assert shown.getvalue().strip() == ""
    with common.progress("answering", 3, Console(file=shown)) as advance:
        advance(3)
    assert "3/3" in shown.getvalue()


@pytest.mark.slow
def test_json_is_one_document_and_text_for_people_goes_elsewhere(work, run):  # noqa: F811
    questions = work / "few.jsonl"
    questions.write_text("\n".join(json.dumps({"question": f"{i}+1", "answer": i}) for i in "123"))
    short = ["--max-new-tokens", 2]
    assert [row["blocks"] for row in rim_json("ask", run, "q", "--blocks", "0,2", *short)] == [0, 2]
    records = rim_json("eval", run, questions, "--blocks", "0,2", *short, "--out", "e.json")
    assert [record["summary"]["blocks"] for record in records] == [0, 2]
    assert json.loads(Path("e-k2.json").read_text()) == records[1]
    (record,) = rim_json("eval", run, questions, *short, "--out", "e.json")
    assert json.loads(Path("e.json").read_text()) == record
    controlled = rim_json("controls", run, questions, "--blocks", "2,3", *short, "--out", "c.json")
    assert [c["verdicts"][-1]["line"].partition(": ")[0] for c in controlled] == [
        f"run, number of blocks at test time, K = 1 to K = {2 * k}" for k in (2, 3)
    ]
    assert json.loads(Path("c-k3.json").read_text()) == controlled[1]
    assert rim_json("data", "stats", questions)["file"] == "few.jsonl"
    assert rim_json("data", "validate", "my.jsonl") == {
        "file": "my.jsonl", "records": 240, "problems": [], "without_steps": [],
        "in_one_step": False,
    }  # fmt: skip


def test_more_blocks_than_trained_and_answers_without_an_end_are_named(work, run):  # noqa: F811
    asked = rim_command("ask", run, "3 and 4?", "--blocks", "2,9")
    assert "Note: 9 blocks, and the model was trained with 3 at most" in " ".join(asked.split())
    told = rim_command("eval", run, "my_test.jsonl", "--blocks", 2, "--max-new-tokens", 1)
    assert "answers after 2 blocks reached --max-new-tokens 1" in " ".join(told.split())
    assert "trained with" not in told


def test_no_file_of_wrong_answers_is_named_where_all_are_right(work, run, monkeypatch):  # noqa: F811
    options = ("--blocks", 1, "--max-new-tokens", 1, "--overwrite")
    assert "Wrong answers: " in rim_command("eval", run, "my_test.jsonl", *options)
    monkeypatch.setattr("rim.evaluate.accuracy.grade", lambda *args, **kwargs: True)
    told = rim_command("eval", run, "my_test.jsonl", *options)
    assert "Wrong answers" not in told and "Result: " in told


def test_a_port_in_use_is_named_before_a_model_is_loaded(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} .*give another one with --port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with monkeypatch.context() as patched:  # an address that is not there is no hindrance
        found = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
        nowhere = [(*found[0][:4], ("192.0.2.1", port))]
        patched.setattr(socket, "getaddrinfo", lambda *args, **options: [*found, *nowhere])
        check_port("localhost", port)
        patched.setattr(socket, "getaddrinfo", lambda *args, **options: nowhere)
        with pytest.raises(ConfigError, match="cannot listen on port"):
            check_port("localhost", port)
    with pytest.raises(ConfigError, match=r"cannot listen on port 8000 of a\.\.b"):
        check_port("a..b", 8000)


def test_what_a_missing_path_was_meant_to_be(tmp_path, monkeypatch):
    (tmp_path / "runs" / "demo-seed0" / "rim").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert no_such("run", "runs/demo-sed0/rim") == (
        "no such run: runs/demo-sed0/rim; did you mean runs/demo-seed0/rim?"
    )
    assert no_such("run", "runs/demo-sed0/cot").endswith("did you mean runs/demo-seed0?")
    assert no_such("file", "x" * 5000).endswith("xxx")
    (tmp_path / "my.jsonl").symlink_to("nowhere")
    assert no_such("file", "my.jsonl") == "no such file: my.jsonl"
    assert no_such("file", "quite/other") == "no such file: quite/other"


def test_several_numbers_of_blocks_are_one_table(work, run):  # noqa: F811
    options = ("--blocks", "0,2,2", "--max-new-tokens", 2, "--overwrite")
    output = rim_command("eval", run, "my_test.jsonl", *options)
    rows = [line.split()[1] for line in output.splitlines() if line.startswith("│")]
    assert rows == ["0", "2"]


def test_nothing_that_is_printed_commands_the_terminal(work, capsys):  # noqa: F811
    name = "a\x1b[31m\u202e.jsonl"
    (work / name).write_text((work / "my.jsonl").read_text())
    for command in (["stats"], ["validate"], ["stats", "--json"]):
        output = rim_command("data", *command[:1], name, *command[1:])
        assert "\x1b" not in output and "\u202e" not in output
    rim_command("data", "generate", "arithmetic", "--out", "b\x1b.jsonl", "--num-examples", 2)
    assert "\x1b" not in rim_command("ask", "no\x1b[2J", "q", code=2)


# --- help ----------------------------------------------------------------------------------------


def all_commands() -> dict[str, SimpleNamespace]:
    """Every command and group by its words, with its parameters as help shows them."""
    found = {}

    def walk(command, words):
        context = type(command).context_class(command, info_name=" ".join(("rim", *words)))
        found[" ".join(words)] = SimpleNamespace(words=words, params=command.get_params(context))
        for name, below in getattr(command, "commands", {}).items():
            walk(below, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def test_every_option_is_described():
    commands = all_commands()
    assert {"train", "ask", "data validate", "lm-eval"} <= commands.keys()
    assert "version" not in commands
    bare = [
        f"{name} {param.name}"
        for name, command in commands.items()
        for param in command.params
        if not (param.help or "").strip()
    ]
    assert not bare


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80])
def test_help_fits_and_names_no_python_types(width):
    from typer.testing import CliRunner

    for name, command in all_commands().items():
        arguments = [*command.words, "--help"]
        output = CliRunner(env={"COLUMNS": str(width)}).invoke(app, arguments, color=False).output
        assert not re.search(r"<bool>|list\[", output), name
        assert "…" not in output, f"{name}: something is cut off"
        assert max(map(len, output.splitlines())) <= width, name


def test_version_is_an_option():
    assert rim_command("--version").strip() == __version__


def test_help_groups_the_commands():
    output = rim_command("--help")
    groups = re.findall(r"─ ([A-Z][a-z ]+?) ─", output)
    assert groups == [
        "Options", "Train and compare", "Ask and evaluate", "Look inside", "Deploy", "Data",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("explain RUN q --pairs 99 --out x.json", "--pairs, --out: only with --data"),
        ("answer --server http://h in.jsonl --out o --batch-size 9 --workers 2",
         "--workers, --batch-size: a server decides that itself"),
        ("answer RUN in.jsonl --out o --retries 9", "--retries: only with --server"),
        ("answer RUN in.jsonl --out o --workers 2", "--workers: only with --engine ray"),
        ("answer RUN in.jsonl --out o --engine ray --device cpu", "--device: not with --engine"),
        ("controls RUN d.jsonl --pairs 99 --set n=3", "--pairs, --set: only with --protocol"),
        ("controls RUN d.jsonl --protocol content --max-new-tokens 9",
         "--max-new-tokens: not with --protocol"),
        ("data distill d.jsonl --out o --server http://h --batch-size 9",
         "--batch-size: only with --teacher"),
        ("data distill d.jsonl --out o --teacher T --retries 0", "--retries: only with --server"),
        ("ask --server http://h q --dtype bfloat16", "a server does not take --dtype"),
        ("ask RUN q --select vote --top-p 0.5", "--select goes with one number"),
    ],
)  # fmt: skip
def test_an_option_that_nothing_would_read_is_refused(command, told):
    assert told in " ".join(rim_command(*command.split(), code=2).split())
