"""The commands of docs/data-without-steps.md run as they stand, from a CSV of word problems."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import tiny_model
from teacher_server import Said, teacher
from test_cli import rim_command

from rim.data.sources import open_file

DOCUMENT = Path(__file__).parents[1] / "docs" / "data-without-steps.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("rim ")]


def problems(path: Path, count: int) -> None:
    rows = ["Problem,Worked solution,Result"]
    for i in range(count):
        a, b = i + 3, i % 7 + 2
        prose = f"First {a}+{b}={a + b}. Then {a + b}*2={2 * (a + b)}."
        rows.append(f"Tom has {a} and buys {b}. What is twice that?,{prose},{2 * (a + b)}")
    path.write_text("\n".join(rows))


def say(question: str, _: dict) -> Said:
    a, b = map(int, re.findall(r"\d+", question))
    return Said(f"{a}+{b}={a + b}\n{a + b}*2={2 * (a + b)}\n#### {2 * (a + b)}")


@pytest.mark.slow
def test_the_document_s_commands_run(tmp_path, plain_tokenizer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEACHER_KEY", "k")
    problems(tmp_path / "problems.csv", 60)
    tiny_model("llama", plain_tokenizer, max_positions=512).save_pretrained("base")
    plain_tokenizer.save_pretrained("base")
    ran, kept, told = [], "", ""
    with teacher(say) as server:
        for words in commands():
            if any(word.startswith("hub:") for word in words):
                continue  # needs the network
            if words[:2] == ["data", "distill"]:
                Path("steps.jsonl").unlink()
            local = {"https://api.example.com": server.url, "path/to/model": "base"}
            local["Qwen/Qwen3-0.6B"] = "base"
            words = [local.get(word, word) for word in words]
            code = 0
            if words[:2] == ["data", "distill"]:
                words.append("--yes")
                if "--teacher" in words:  # a random model reaches no answer
                    words += ["--out", "other.jsonl", "--limit", "2", "--max-new-tokens", "5"]
                    code = 1
                    Path("steps.jsonl").write_text(kept)
            if words[0] == "compare":
                words += ["--steps", "2", "--set", "latency.questions=1"]
                words += ["--set", "evaluation.max_new_tokens=4"]
            told = rim_command(*words, code=code)
            ran.append(words[:2])
            if Path("steps.jsonl").exists():
                kept = Path("steps.jsonl").read_text()
    assert len(ran) == 6
    assert set(server.keys) == {"Bearer k"} and len(server.bodies) == 240
    assert [len(e.steps) for e in open_file(Path("steps.jsonl"))] == [2] * 60
    assert json.loads(kept.splitlines()[0])["steps"] == ["3+2=5", "5*2=10"]
    assert "60 examples" in rim_command("data", "convert", "steps.jsonl", "--out", "again.jsonl")
    assert "12 test questions, one seed; the most frequent answer:" in " ".join(told.split())


def test_the_recipe_of_the_document_reads_the_table(tmp_path, monkeypatch):
    import yaml

    from rim.config import DataConfig
    from rim.data.training import load_training_data

    monkeypatch.chdir(tmp_path)
    problems(tmp_path / "problems.csv", 30)
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    data = DataConfig.model_validate(yaml.safe_load(text)["data"] | {"holdout": 5})
    train, held = load_training_data(data, 0)
    assert (len(train), len(held)) == (25, 5)
