"""rim compare: statistics, selection, budgets, plans, continuing, tables, plot, command line."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest
import torch
import yaml
from rich.console import Console
from test_cli import plain_console, rim_command  # noqa: F401  (a fixture that acts by itself)
from test_training import raw_recipe

import rim.study.compare.measure as measure
import rim.train.curriculum
import rim.train.trainer
from rim.config import ConfigError, Recipe
from rim.evaluate.statistics import joint_p, mcnemar, share_spread, t_quantile, value_spread
from rim.evaluate.verdicts import verdict
from rim.infer.reasoner import load
from rim.report.comparison import accuracy_table
from rim.report.plot import accuracy_latency_svg, x_axis
from rim.study.compare.aggregate import aggregate
from rim.study.compare.plan import check_tokens, make_plan
from rim.study.compare.runner import run_comparison
from rim.study.compare.selection import select
from rim.study.compare.settings import load_comparison
from rim.study.compare.worker import PARENT_GONE

QUIET = Console(quiet=True)


def stage(name, objective, steps, **more):
    settings = {"name": name, "objective": objective, "max_steps": steps, "batch_size": 8}
    return settings | {"learning_rate": 1e-3, "evaluate_every": 2} | more


def raw_comparison(tmp_path, **changes):
    recipe = raw_recipe(tmp_path)
    raw = {
        "name": "smoke",
        "runs_dir": str(tmp_path / "runs"),
        "seeds": [0],
        "tasks": {
            "chains": {
                "data": recipe["data"],
                "test": {
                    "format": "arithmetic",
                    "arithmetic": {"num_examples": 20, "split": "test"},
                },
            }
        },
        "common": {
            "model": {"tuning": "full"},
            **{key: recipe[key] for key in ("memory", "templates", "validation")},
        },
        "starts": {
            "base": {
                "method": "cot",
                "model": {"scratch": recipe["model"]["scratch"]},
                "stages": [stage("solutions", "solution", 2)],
            }
        },
        "methods": {
            "direct": {
                "from": "base",
                "method": "direct",
                "stages": [stage("answers", "answer", 6)],
            },
            "rim": {
                "from": "base",
                "method": "rim",
                "stages": [stage("grounding", "steps", 2), stage("refinement", "answer", 4)],
            },
        },
        "evaluation": {"max_new_tokens": 4},
        "latency": {"questions": 2},
    }
    return raw | changes


def write(tmp_path, raw):
    path = tmp_path / "comparison.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def settings_of(tmp_path, *overrides, **changes):
    return load_comparison(write(tmp_path, raw_comparison(tmp_path, **changes)), overrides)


def results(folder):
    """What must not depend on interruptions: everything but times."""
    found = {}
    for path in sorted(folder.glob("results/*/*.json")):
        record = json.loads(path.read_text())
        total = record["training"]["total"]
        counts = {key: value for key, value in total.items() if key != "seconds"}
        found[path.name] = (record["results"], counts)
    return found


# --- statistics ----------------------------------------------------------------------------------


def test_mcnemar_equals_the_binomial_computed_by_hand():
    # 1 question only the first gets right, 5 only the second: 2 * (1 + 6) / 2^6.
    test = mcnemar("1" + "00000" + "11", "0" + "11111" + "11")
    assert (test.only_first, test.only_second) == (1, 5)
    assert test.p == pytest.approx(14 / 64)
    assert mcnemar("1100", "0011").p == 1.0
    assert mcnemar("1010", "1010").p == 1.0
    assert mcnemar("1" * 10, "0" * 10).p == pytest.approx(2 / 1024)


def test_mcnemar_does_not_care_which_comes_first():
    first, second = "110100111010", "010111000011"
    assert mcnemar(first, second).p == mcnemar(second, first).p


def test_mcnemar_is_exact_for_thousands_of_questions():
    assert 0 < mcnemar("1" * 600 + "0" * 400, "0" * 600 + "1" * 400).p < 1e-9
    assert mcnemar("1" * 4000, "0" * 4000).p == 0.0  # below the smallest number


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)]
)
def test_t_quantiles_are_those_of_the_printed_tables(freedom, expected):
    assert t_quantile(0.975, freedom) == pytest.approx(expected, abs=6e-4)


def test_an_interval_says_what_it_is():
    assert share_spread(["1110"])["kind"] == "wilson"
    three = share_spread(["1110", "1100", "1111"])
    assert (three["kind"], three["low"], three["high"]) == ("range", 0.5, 1.0)
    five = value_spread([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764 * math.sqrt(2.5) / math.sqrt(5)
    assert five["kind"] == "t"
    assert five["low"] == pytest.approx(3 - half, abs=1e-3)


# --- selection -----------------------------------------------------------------------------------


def test_selection_chooses_the_better_candidate_and_scores_it_on_the_rest():
    good, bad = "1" * 90 + "0" * 10, "0" * 60 + "1" * 40
    selected = select({"bad": bad, "good": good}, splits=16, held_out=40, seed=0)
    assert selected["chosen"] == {"good": 16}
    assert selected["mean"] == pytest.approx(0.9, abs=0.05)
    assert 0 < selected["standard_error"] < 0.05


def test_selection_never_scores_on_the_questions_it_chose_with():
    # Two candidates that are right on either half: chosen by luck of the split, the winner is
    # expected below one half on the other questions.
    first, second = "1" * 10 + "0" * 10, "0" * 10 + "1" * 10
    selected = select({"first": first, "second": second}, splits=400, held_out=10, seed=0)
    assert selected["mean"] < 0.45


def test_selection_refuses_to_hold_out_every_question():
    with pytest.raises(ConfigError, match=r"264 leaves nothing to score of 4"):
        select({"a": "1010"}, splits=16, held_out=264, seed=0)


# --- verdicts ------------------------------------------------------------------------------------


def test_a_verdict_claims_a_fall_only_if_every_seed_shows_it():
    clear, broken = "1" * 20, "0" * 20
    fallen = verdict("no blocks", [clear, clear], [broken, broken])
    assert "accuracy falls from 100.0 to 0.0 % (20 questions, 2 seeds" in fallen["line"]
    assert "p < 0.001 in every seed" in fallen["line"]
    mixed = verdict("no blocks", [clear, clear], [broken, clear])
    assert "shows no sure change" in mixed["line"] and mixed["p"] == 1.0
    assert "rises" in verdict("more", [broken], [clear])["line"]


def test_seeds_that_are_sure_of_opposite_things_are_sure_of_nothing():
    clear, broken = "1" * 20, "0" * 20
    fall, rise = mcnemar(clear, broken), mcnemar(broken, clear)
    assert fall.p == rise.p < 0.001
    assert joint_p([fall, rise]) == 1.0
    assert joint_p([fall, fall]) == fall.p
    mixed = verdict("no blocks", [clear, broken], [broken, clear])
    assert "shows no sure change" in mixed["line"] and mixed["p"] == 1.0
    row = {"against_reference": [vars(fall), vars(rise)], "p": joint_p([fall, rise])}
    row |= {"final": share_spread([clear, broken])}
    (cells,) = zip(*(c.cells for c in accuracy_table("t", {"x": row}, "rim").columns), strict=True)
    assert cells[-2:] == ("20/20", "1.000")


def test_a_control_on_the_first_questions_is_compared_on_those():
    shown = verdict("zeroed", ["1111100000"], ["00000"])
    assert (shown["from"], shown["to"], shown["questions"]) == (1.0, 0.0, 5)


# --- settings and plans --------------------------------------------------------------------------


def test_the_projects_own_comparison_is_valid_and_its_budgets_are_equal():
    from test_docs import ROOT

    for path in ROOT.glob("recipes/compare_*.yaml"):
        plan = make_plan(load_comparison(path))
        assert plan and all(isinstance(run.recipe, Recipe) for run in plan)


def test_a_wrong_key_anywhere_is_refused_with_the_nearest_one(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'latency'"):
        settings_of(tmp_path, "latencies.questions=3")
    with pytest.raises(ConfigError, match=r"tasks.chains.extra_test.*did you mean 'extra_tests'"):
        settings_of(tmp_path, "tasks.chains.extra_test.x=3")
    with pytest.raises(ConfigError, match=r"methods.rim \(task chains\).*did you mean 'max_steps'"):
        make_plan(settings_of(tmp_path, "methods.rim.stages.grounding.max_step=3"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reference=rin", "reference: no 'rin' here, there are direct, rim"),
        ("methods.rim.from=bass", "methods.rim.from: no 'bass' here, there are base"),
        ("methods.direct.control_of=x", "methods.direct.control_of: no 'x'"),
        ("budget.exempt.cot=why", "budget.exempt: no 'cot' here"),
        ("seeds=[1,1]", "seeds repeat"),
    ],
)
def test_names_that_lead_nowhere_are_refused(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        settings_of(tmp_path, override)


def test_settings_of_the_comparison_may_not_stand_in_a_method(tmp_path):
    with pytest.raises(ConfigError, match=r"methods.rim: 'seed' is set by the comparison"):
        make_plan(settings_of(tmp_path, "methods.rim.seed=3"))


def test_every_start_comes_before_the_runs_that_need_it(tmp_path):
    plan = make_plan(settings_of(tmp_path, "seeds=[0,1]"))
    assert [run.name for run in plan] == [
        f"chains/{name}-seed{seed}" for seed in (0, 1) for name in ("base", "direct", "rim")
    ]
    direct = plan[1]
    assert direct.recipe.model.base == str(plan[0].folder.model_dir)


def test_unequal_steps_are_refused_unless_exempt_with_a_reason(tmp_path):
    longer = "methods.direct.stages.answers.max_steps=7"
    with pytest.raises(ConfigError, match="direct 7 steps and 56 examples, rim 6 steps and 48"):
        make_plan(settings_of(tmp_path, longer))
    make_plan(settings_of(tmp_path, longer, "budget.exempt.direct=a test"))
    with pytest.raises(ConfigError, match=r"budget.exempt.direct"):
        settings_of(tmp_path, longer, "budget.exempt.direct=''")


def test_epochs_count_as_the_steps_that_they_take(tmp_path):
    raw = raw_comparison(tmp_path)
    raw["methods"]["direct"]["stages"][0] |= {"max_steps": None, "epochs": 0.75}
    make_plan(load_comparison(write(tmp_path, raw)))  # 64 examples, batch 8: 6 steps
    raw["methods"]["direct"]["stages"][0] |= {"epochs": 2}
    with pytest.raises(ConfigError, match="direct 16 steps"):
        make_plan(load_comparison(write(tmp_path, raw)))


def test_unequal_tokens_are_refused_with_the_steps_that_would_fit(tmp_path):
    settings = settings_of(tmp_path, "budget.kind=tokens")

    def result(method, tokens, seed=0):
        total = {"tokens": tokens, "steps": 100}
        return {"method": method, "seed": seed, "training": {"total": total}}

    check_tokens(settings, "chains", [result("direct", 1000), result("rim", 1040)])
    with pytest.raises(ConfigError, match="About 50 steps instead of 100"):
        check_tokens(settings, "chains", [result("direct", 1000), result("rim", 2000)])
    # Each is near the first one, but not near each other.
    with pytest.raises(ConfigError, match="direct trained on 1040 tokens, cot on 960"):
        chain = [result("rim", 1000), result("direct", 1040), result("cot", 960)]
        check_tokens(settings, "chains", chain)
    # The first seed is unequal, the last is not.
    both = settings_of(tmp_path, "budget.kind=tokens", "seeds=[0,1]")
    rows = [result("direct", 1000), result("rim", 2000)]
    with pytest.raises(ConfigError, match="seed 0"):
        check_tokens(both, "chains", [*rows, result("direct", 10, 1), result("rim", 10, 1)])
    # Seeds are not compared with each other.
    check_tokens(both, "chains", [result("direct", 1000), result("direct", 2000, 1)])
    exempt = settings_of(tmp_path, "budget.kind=tokens", "budget.exempt.rim=blocks are longer")
    check_tokens(exempt, "chains", [result("direct", 1000), result("rim", 2000)])


# --- running -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A comparison that nothing interrupted."""
    tmp_path = tmp_path_factory.mktemp("whole")
    settings = settings_of(tmp_path)
    return settings, *run_comparison(settings, QUIET)


def test_a_comparison_states_accuracy_costs_and_latency_of_every_method(whole):
    settings, result, failures = whole
    assert not failures and not result["missing"]
    methods = result["tasks"]["chains"]["methods"]
    assert set(methods) == {"direct", "rim"}
    for row in methods.values():
        assert row["steps"]["mean"] == 6 and row["examples"]["mean"] == 48
        assert row["seconds"]["mean"] > 0 and row["latency"]["answer_ms"]["mean"] > 0
        assert row["parameters"]["trainable"] > 0
        assert [d["steps"] for d in row["by_steps"]] == [2, 3, 4]
    # Blocks and more read-outs of the same examples: more tokens.
    assert methods["rim"]["tokens"]["mean"] > methods["direct"]["tokens"]["mean"]
    assert "any_block" in methods["rim"] and "any_block" not in methods["direct"]
    assert result["tasks"]["chains"]["starts"]["base"]["steps"]["mean"] == 2
    assert aggregate(settings, make_plan(settings))["tasks"] == result["tasks"]


def test_trained_tokens_are_those_of_the_batches(tmp_path, monkeypatch):
    """Against the layouts themselves, padding and all."""
    seen = []
    original = rim.train.trainer.collate

    def collate(layouts, **options):
        seen.append(list(layouts))
        return original(layouts, **options)

    monkeypatch.setattr(rim.train.trainer, "collate", collate)
    from rim.config.recipe_yaml import recipe_from_dict
    from rim.train.curriculum import train

    raw = raw_recipe(tmp_path)
    raw["stages"] = [raw["stages"][0] | {"max_steps": 8, "evaluate_every": 8}]
    folder = train(recipe_from_dict(raw), console=QUIET)
    total = json.loads(folder.training_file.read_text())["total"]
    # 64 examples in 8 steps of 8: each once. Then one validation batch of 8.
    batches = [batch for batch in seen if len(batch) == 8][:8]
    lengths = [len(layout.fields_TF) for batch in batches for layout in batch]
    assert total["examples"] == 64 == len(lengths)
    assert total["tokens"] == sum(lengths)
    assert 0 < total["target_tokens"] < total["tokens"]


def test_finished_results_are_not_run_again(whole, monkeypatch):
    settings, result, _ = whole
    monkeypatch.setattr(measure, "train", None)
    monkeypatch.setattr(measure, "load", None)
    again, failures = run_comparison(settings, QUIET)
    assert again["tasks"] == result["tasks"] and not failures


def test_a_changed_recipe_is_refused_where_there_is_a_result(whole, tmp_path):
    settings, _, _ = whole
    raw = settings.model_dump(mode="json")
    raw["methods"]["rim"]["recipe"]["stages"][1]["learning_rate"] = 5e-4
    changed = load_comparison(write(tmp_path, raw))
    with pytest.raises(ConfigError, match=r"another recipe \(stages.1.learning_rate: 0.001, now"):
        run_comparison(changed, QUIET)


@pytest.mark.parametrize("where", [("answers", 4), ("grounding", 1), ("refinement", 3)])
def test_an_interrupted_comparison_continues_to_the_same_results(
    whole, tmp_path, monkeypatch, where
):
    settings = settings_of(tmp_path)
    original = rim.train.trainer.ReadoutTrainer.training_step

    def stop(self, *args, **kwargs):
        if (self.stage.name, self.state.global_step + 1) == where:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(rim.train.trainer.ReadoutTrainer, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run_comparison(settings, QUIET)
    run_comparison(settings, QUIET)
    assert results(settings.folder) == results(whole[0].folder)


@pytest.mark.parametrize("saving", [1, 4])
def test_a_stop_between_the_last_checkpoint_and_the_stages_model_takes_no_step_too_many(
    whole, tmp_path, monkeypatch, saving
):
    settings = settings_of(tmp_path)
    original, saved = rim.train.curriculum.save_trained, []

    def stop(*args, **kwargs):
        saved.append(args)
        if len(saved) == saving:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(rim.train.curriculum, "save_trained", stop)
        with pytest.raises(KeyboardInterrupt):
            run_comparison(settings, QUIET)
    run_comparison(settings, QUIET)
    assert results(settings.folder) == results(whole[0].folder)
    weights = {
        folder: load(folder / "chains/rim-seed0").model.state_dict()
        for folder in (settings.folder, whole[0].folder)
    }
    first, second = weights.values()
    assert all(torch.equal(first[name], second[name]) for name in first)


def command_line(path, *options):
    code = "from rim.cli import app; app()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "compare", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
    )


def test_a_comparison_killed_inside_a_run_continues_to_the_same_results(whole, tmp_path):
    path = write(tmp_path, raw_comparison(tmp_path))
    process = command_line(path)
    inside = "chains/rim-seed0/stages/*/checkpoint-*/trainer_state.json"
    folder = tmp_path / "runs" / "smoke"
    deadline = time.monotonic() + 240
    while not any(folder.glob(inside)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output  # it did not end by itself
    run_comparison(load_comparison(path), QUIET)
    assert results(folder) == results(whole[0].folder)


def test_a_run_killed_before_its_first_stage_begins_again(whole, tmp_path):
    settings = settings_of(tmp_path)
    run = make_plan(settings)[0]
    run.folder.path.mkdir(parents=True)
    run.folder.config_file.write_text("name: half a fi")
    run_comparison(settings, QUIET)
    assert results(settings.folder) == results(whole[0].folder)


def test_two_processes_give_the_results_of_one(whole, tmp_path):
    settings = settings_of(tmp_path)
    _, failures = run_comparison(settings, QUIET, jobs=2)
    assert not failures
    assert results(settings.folder) == results(whole[0].folder)


def test_a_worker_ends_when_its_parent_does(tmp_path):
    settings = settings_of(tmp_path)
    path = write(tmp_path, settings.model_dump(mode="json"))
    command = [
        sys.executable,
        "-m",
        "rim.study.compare.worker",
        str(path),
        "chains/base-seed0",
        "1",
    ]
    # An ended pipe is all that is left of a parent that was killed.
    process = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=240)
    assert process.returncode == PARENT_GONE, process.stderr
    assert not make_plan(settings)[0].done


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_failing_run_is_reported_and_the_others_finish(tmp_path, jobs):
    raw = raw_comparison(tmp_path)
    # So large a rate that the loss is no number any more.
    raw["methods"]["direct"]["stages"][0] |= {"learning_rate": 1e30, "max_grad_norm": 1e30}
    settings = load_comparison(write(tmp_path, raw))
    result, failures = run_comparison(settings, QUIET, jobs=jobs)
    assert [failure.run.name for failure in failures] == ["chains/direct-seed0"]
    assert "Try a lower learning_rate" in failures[0].reason
    assert set(result["tasks"]["chains"]["methods"]) == {"rim"}
    assert result["missing"] == ["chains/direct-seed0"]


def test_only_runs_what_is_asked_for(tmp_path):
    settings = settings_of(tmp_path)
    result, _ = run_comparison(settings, QUIET, only=["direct"])
    assert result["missing"] == ["chains/rim-seed0"]
    with pytest.raises(ConfigError, match="no method 'rin', there are direct, rim"):
        run_comparison(settings, QUIET, only=["rin"])


def test_controls_run_on_the_reference_and_become_verdicts(tmp_path):
    settings = settings_of(tmp_path, "controls.questions=10", "methods.direct.control_of=rim")
    result, _ = run_comparison(settings, QUIET)
    lines = [v["line"] for v in result["tasks"]["chains"]["controls"]]
    starts = (
        "rim, no blocks: accuracy",
        "rim, block states zeroed: accuracy",
        "rim, blocks shuffled: accuracy",
        "rim, blocks of another question: accuracy",
        "rim, question hidden from the read-out: accuracy",
        "rim, number of blocks at test time, K = 1 to K = 10:",
        "direct instead of rim: accuracy",
    )
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)
    assert "(10 questions, 1 seed," in lines[0] and "(20 questions, 1 seed," in lines[-1]
    assert "% give the other question's answer (" in lines[3]
    assert lines[3].endswith("% do with their own blocks)")
    # The sweep at the trained number of blocks is the model as it is.
    sweep = result["tasks"]["chains"]["controls"][5]["accuracies"]
    assert sweep["K = 5"] == result["tasks"]["chains"]["controls"][0]["from"]


# --- what is shown -------------------------------------------------------------------------------


def test_the_command_prints_tables_of_80_columns_and_writes_json_and_plot(whole, monkeypatch):
    monkeypatch.setattr(rim.cli.common, "console", Console(width=80))
    settings, result, _ = whole
    raw = settings.model_dump(mode="json") | {"selection": {"splits": 4, "held_out": 5}}
    path = settings.folder / "again.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    out = settings.folder / "out.json"
    output = rim_command("compare", path, "--table-only", "--out", out)
    tables = [line for line in output.splitlines() if line[:1] in "┏┃┡│└"]
    assert tables and max(map(len, tables)) <= 80
    assert "…" not in output, "a table cut something off"
    flat = " ".join(output.split())
    for words in ("chains: accuracy %", "chains: cost", "with TEST questions", "Equal budgets"):
        assert words in flat
    written = json.loads(out.read_text())
    assert written["tasks"]["chains"]["methods"] == result["tasks"]["chains"]["methods"]
    assert written["tasks"]["chains"]["selection"]["rim"]["chosen"] == {"rim-seed0": 4}
    assert ET.parse(out.with_suffix(".svg")).getroot().tag.endswith("svg")


def test_a_failure_ends_in_one_sentence_and_code_2(tmp_path):
    path = write(tmp_path, raw_comparison(tmp_path))
    output = rim_command("compare", path, "--table-only", code=2)
    assert "has no results yet" in output
    assert "no such recipe" in rim_command("compare", tmp_path / "x.yaml", code=2)


def test_every_method_has_its_own_label_in_the_plot():
    spread = {"kind": "range", "seeds": 3}
    methods = {
        name: {
            "final": spread | {"mean": 0.97, "low": 0.9, "high": 1.0},
            "latency": {"answer_ms": spread | {"mean": ms, "low": ms, "high": ms}},
        }
        for name, ms in (("rim <b>", 6.0), ("pause", 6.1), ("coconut", 6.2), ("cot", 40.0))
    }
    svg = accuracy_latency_svg("chains", methods)
    root = ET.fromstring(svg)
    texts = {e.text: e for e in root.iter() if e.tag.endswith("text")}
    assert set(methods) <= set(texts)
    heights = sorted(float(texts[name].get("y", 0)) for name in ("rim <b>", "pause", "coconut"))
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 15
    assert "log scale" in svg


def test_the_latency_axis_is_logarithmic_only_where_methods_differ_by_much():
    for low, high in ((5.0, 8.0), (1.0, 1.0), (90.0, 99.9), (3.0, 11.0)):
        ticks, scale, kind = x_axis(low, high)
        assert kind == "" and ticks[-1] >= high and 3 <= len(ticks) <= 10
        assert 64 <= scale(low) <= scale(high) <= 690
    assert x_axis(1.0, 10.0)[0][0] <= 1.0
    ticks, scale, kind = x_axis(3.0, 400.0)
    assert kind and ticks[0] <= 3 and ticks[-1] >= 400
    assert scale(30.0) - scale(3.0) == pytest.approx(scale(300.0) - scale(30.0))
