"""The paper's experiments by name, end to end from a hub that is a folder."""

from __future__ import annotations

import json

import fake_hub
import pytest
from typer.testing import CliRunner

from rim.cli import app
from rim.config import ConfigError
from rim.data.sources import load_examples
from rim.report.page.reproduced import FIRST
from rim.study.reproduce.catalogue import RECIPES, Entry, entries, expected, find, interval
from rim.study.reproduce.cost import cost_of
from rim.study.reproduce.running import TASK, comparison_of, judged, planned

SHORT = ["--seeds", "0", "--json"]
FAST = {
    "data.holdout": 4,
    "selection.held_out": 3,
    "selection.splits": 4,
    "latency.questions": 1,
    "evaluation.max_new_tokens": 8,
    "validation.max_new_tokens": 4,
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    fake_hub.write_data_sets(root)
    fake_hub.write_models(root)
    return root


@pytest.fixture
def at_the_hub(hub, tmp_path, monkeypatch):
    """The folder of hub names is where one stands; runs and caches go elsewhere."""
    import datasets

    monkeypatch.chdir(hub)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return [f"--set=runs_dir={tmp_path / 'runs'}"]


def run(*arguments: str):
    return CliRunner().invoke(app, ["reproduce", *arguments], catch_exceptions=False)


def settings(**more: object) -> list[str]:
    return [f"--set={key}={value}" for key, value in (FAST | more).items()]


# What can fail apart: each method once, each family with blocks, a start with an adapter and one
# without, the other form of the data.
COMPLETE = {
    "gpt2/rim": (4, {"data.train.path": "zen-E/GSM8k-Aug", "data.train.records": "gsm8k_aug_json"}),
    "gpt2/coconut": (4, {}),
    "gpt2/icot": (5, {}),
    "gpt2/codi": (1, {}),
    "gpt2/lotus": (1, {}),
    "gpt2/pause": (1, {}),
    "llama3.2-1b/direct": (2, {}),
    "llama3.2-1b/coconut": (4, {}),
    "llama3.2-3b/rim": (2, {}),
    "qwen3-0.6b/rim_own_step": (2, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPLETE)
def test_a_reproduction_runs_from_the_hubs_files_to_its_verdicts(name, at_the_hub):
    steps, more = COMPLETE[name]
    result = run(name, "--steps", str(steps), *SHORT, *at_the_hub, *settings(**more))
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["reproduction"] == name and record["trial_steps"] == steps
    tests = {row["test"]: row for row in record["figures"] if row["which"] == "final"}
    assert set(tests) == {"gsm8k", "gsm_hard", "svamp", "multiarith"}
    content = record["comparison"]["tasks"][TASK]
    assert {name: data["examples"] for name, data in content["data"]["tests"].items()} == {
        "test": len(fake_hub.TESTING),
        "gsm_hard": len(fake_hub.TESTING),
        "svamp": 4,
        "multiarith": 4,
    }
    assert all(0 <= row["paper_protocol"]["mean"] <= 100 for row in tests.values())
    figures = find(name).figures
    judgements = [figure for row in record["figures"] for figure in row["expected"]]
    assert len(judgements) == len(figures)
    assert all(figure["validation_only"] == "below" for figure in judgements)  # of tiny models
    (row,) = content["methods"].values()
    assert row["steps"]["mean"] == steps


@pytest.mark.slow
def test_a_reproduction_continues_and_writes_what_it_prints(at_the_hub, tmp_path):
    words = ["gpt2/direct", "--steps", "1", *SHORT, *at_the_hub, *settings()]
    first = json.loads(run(*words).stdout)
    again = run(*words)
    assert again.exit_code == 0 and "0 of them to do" in again.stderr
    written = tmp_path / "runs" / "paper_gpt2-1steps" / "direct.json"
    assert json.loads(written.read_text())["figures"] == first["figures"]
    assert json.loads(again.stdout)["figures"] == first["figures"]


def test_both_forms_of_the_training_data_are_the_same(at_the_hub):
    changes = ("data.train.path=zen-E/GSM8k-Aug", "data.train.records=gsm8k_aug_json")
    found = []
    for overrides in ((), changes):
        (task,) = comparison_of(Entry("gpt2", "rim"), (0,), overrides).tasks.values()
        found.append([(e.question, e.steps, e.answer) for e in load_examples(task.data.train)])
    assert found[0] == found[1] and len(found[0]) == len(fake_hub.TRAINING)


# --- without training ----------------------------------------------------------------------------


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_every_reproduction_resolves_and_states_its_cost(entry):
    plan = planned(entry, comparison_of(entry, (0, 1)))
    assert entry.recipe().name == entry.run_name
    assert plan["hours"] == pytest.approx(2 * (plan["hours_a_seed"] + plan["hours_of_the_start"]))
    assert 0 < plan["hours_a_seed"] < 24 and 1 < plan["memory_gib"] < 80
    assert "test" not in plan["data"]["training"]
    assert plan["base"] in fake_hub.MODELS


def test_every_figure_belongs_to_a_recipe_and_a_test():
    for base, methods in expected().figures.items():
        assert base in expected().sizes
        for method, figures in methods.items():
            assert (RECIPES / base / f"{method}.yaml").exists(), (base, method)
            for figure in figures:
                assert figure.test in expected().tests
                low, high = interval(figure)
                assert low < min(figure.values) <= max(figure.values) < high


def test_the_sizes_that_costs_come_from_are_those_of_the_models():
    """GPT-2's 124.4 M weights and Llama-3.2-1B's 1.236 B, but for norms, biases and positions."""
    from rim.study.reproduce import cost

    for base, published in {
        "gpt2": 124.4e6,
        "llama3.2-1b": 1.236e9,
        "llama3.2-3b": 3.213e9,
    }.items():
        sizes = expected().sizes[base]
        total = cost._weights(sizes) + sizes.vocabulary * sizes.width
        assert total == pytest.approx(published, rel=0.01)


def test_costs_grow_with_what_they_come_from():
    entry = find("gpt2/rim")
    recipe = entry.recipe()
    cost = cost_of(recipe, entry.sizes)
    (first, second) = cost.stages
    assert first.steps == 6 * -(-(385_620 - 500) // 128) and second.steps * 3 == first.steps
    # Question, 8 blocks of 4 tokens, 8 answers whose last token is not fed.
    assert second.tokens == 61 + 8 * 4 + 8 * 4
    small = recipe.model_copy(
        update={
            "stages": tuple(s.model_copy(update={"micro_batch_size": 16}) for s in recipe.stages)
        }
    )
    assert cost_of(small, entry.sizes).memory_gib < cost.memory_gib
    full = recipe.model_copy(update={"model": recipe.model.model_copy(update={"tuning": "full"})})
    assert cost_of(full, entry.sizes).hours > cost.hours


@pytest.mark.parametrize(("mean", "place"), [(0.32, "below"), (0.34, "in"), (0.35, "above")])
def test_a_figure_lies_below_in_or_above_its_interval(mean, place):
    spread = {"mean": mean, "low": mean, "high": mean, "kind": "range", "seeds": 3}
    chosen = {"mean": mean, "standard_error": 0.01}
    others = ("gsm_hard", "svamp", "multiarith")
    content = {
        "methods": {"rim": {"final": spread, "extra_tests": dict.fromkeys(others, spread)}},
        "selection": {"rim": chosen | {"others": dict.fromkeys(others, chosen)}},
    }
    rows = judged(find("gpt2/rim"), {"tasks": {TASK: content}})
    (figure,) = rows[0]["expected"]
    assert (figure["low"], figure["high"]) == pytest.approx((32.6, 34.6))
    assert figure["paper_protocol"] == figure["validation_only"] == place
    assert rows[1]["expected"][0]["validation_only"] == "above"  # of 6.8 to 8.8 % on GSM-Hard
    assert rows[2]["expected"] == []


def test_settings_reach_recipe_start_and_comparison():
    entry = find("gpt2/coconut")
    changes = ("stages.final.epochs=2", "start.stages.solutions.epochs=1", "selection.splits=5")
    found = comparison_of(entry, (0,), changes)
    assert found.methods["coconut"].recipe["stages"][-1]["epochs"] == 2
    assert found.starts["start"].recipe["stages"][0]["epochs"] == 1
    assert found.selection is not None and found.selection.splits == 5
    with pytest.raises(ConfigError, match="no start to set"):
        comparison_of(find("gpt2/rim"), (0,), ("start.seed=1",))
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        comparison_of(entry, (0,), ("stages.final.epoch=2",))
    with pytest.raises(ConfigError, match="--seeds says"):
        comparison_of(entry, (0,), ("seed=5",))
    with pytest.raises(ConfigError, match="for the start and the method alike"):
        comparison_of(entry, (0,), ("start.data.train.limit=10",))


def test_the_list_has_every_name_with_its_figures_and_costs():
    result = run("--list")
    assert result.exit_code == 0
    for entry in entries():
        assert entry.name in result.stdout
    assert "33.6 (p)" in result.stdout and "computed, not measured" in result.stdout
    plans = json.loads(run("--list", "--json").stdout)
    assert [plan["name"] for plan in plans] == [entry.name for entry in entries()]
    # The last line: every name once, and each start once a base, however many begin with it.
    alone = sum(plan["hours_a_seed"] for plan in plans)
    starts = {plan["base"]: plan["hours_of_the_start"] for plan in plans if plan["start"]}
    assert {plan["start"] for plan in plans} - {None} == {
        f"{base}/cot" for base in ("gpt2", "llama3.2-1b", "llama3.2-3b", "qwen3-0.6b")
    }
    total = alone + sum(starts.values())
    last = result.stdout.splitlines()[-1]
    assert f"{total:.0f} h for one seed, {3 * total:.0f} h for three" in last
    first = sum(p["hours_a_seed"] for p in plans if p["name"] in FIRST)
    assert last.endswith(f"{', '.join(FIRST)}: {first:.1f} h for one seed (--seeds 0).")


def test_a_dry_run_says_what_would_happen_and_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("gpt2/coconut", "--dry-run")
    assert result.exit_code == 0
    for words in ("Starts from gpt2/cot", "openai/gsm8k, test", "Expects: GSM8K 30.1-32.1 %"):
        assert words in result.stdout
    assert not list(tmp_path.iterdir())
    other = run("gpt2/coconut", "--dry-run", "--set", "start.model.base=downloaded/gpt2")
    assert other.exit_code == 0 and "Starts from gpt2/cot" in other.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gpt2/rimm"], "did you mean 'gpt2/rim'"),
        ([], "name a reproduction"),
        (["gpt2/rim", "--seeds", "x"], "--seeds takes a number"),
        (["gpt2/rim", "--set", "metod=rim"], "did you mean 'method'"),
        (
            ["gpt2/coconut", "--set", "model.base=downloaded/gpt2"],
            "set start.model.base=downloaded",
        ),
        (["gpt2/rim", "--set", "selection=null"], "chooses among the seeds of rim"),
        (["gpt2/icot", "--steps", "4"], "5 stages, which need at least a step each"),
    ],
)
def test_mistakes_end_in_one_sentence(words, message):
    result = run(*words)
    assert result.exit_code == 2 and message in result.stderr
