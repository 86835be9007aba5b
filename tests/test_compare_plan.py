"""rim compare before anything trains: settings, plans, equal budgets, test questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comparisons import QUIET, raw_comparison, settings_of, stage, write

import rim.study.compare.measure as measure
from rim.config import ConfigError, Recipe
from rim.config.recipe_yaml import dump_yaml
from rim.data.examples import DataError
from rim.study.compare.plan import check_tokens, choose, make_plan
from rim.study.compare.recorded import refuse_changes
from rim.study.compare.runner import run_comparison, sum_up
from rim.study.compare.settings import load_comparison
from rim.study.compare.trial import trial

ROOT = Path(__file__).parents[1]


def test_the_projects_own_comparison_is_valid_and_its_budgets_are_equal(monkeypatch):
    monkeypatch.setenv("RIM_DATA", "data")
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


def chained(tmp_path, *overrides):
    """rim starts from a grounded model, which starts from the base that direct starts from, too."""
    raw = raw_comparison(tmp_path)
    scratch = raw["starts"]["base"]["model"].pop("scratch")
    raw["common"]["model"]["scratch"] = scratch  # a start's shape is its own start's
    grounding, refinement = raw["methods"]["rim"]["stages"]
    refinement["max_steps"] = 6
    raw["starts"]["grounded"] = {"from": "base", "method": "rim", "stages": [grounding]}
    raw["methods"]["rim"] = {"from": "grounded", "method": "rim", "stages": [refinement]}
    return load_comparison(write(tmp_path, raw), overrides)


def test_a_start_may_start_from_another(tmp_path):
    settings = chained(tmp_path)
    plan = make_plan(settings)
    assert [run.name for run in plan] == [
        f"chains/{name}-seed0" for name in ("base", "direct", "grounded", "rim")
    ]
    base, direct, grounded, rim = plan
    assert grounded.recipe.model.base == str(base.folder.model_dir)
    assert rim.recipe.model.base == str(grounded.folder.model_dir)
    assert rim.starts == [grounded, base] and direct.starts == [base]
    assert choose(settings, plan, ["rim"]) == [base, grounded, rim]
    with pytest.raises(ConfigError, match="base from grounded from base, a circle"):
        chained(tmp_path, "starts.base.from=grounded")
    with pytest.raises(ConfigError, match=r"starts.grounded.from: no 'bass' here"):
        chained(tmp_path, "starts.grounded.from=bass")


def test_a_method_may_begin_with_a_stage_of_another(tmp_path):
    def comparison(start, steps=4, **changes):
        raw = raw_comparison(tmp_path, **changes)
        after = {"from": start, "method": "direct", "stages": [stage("after", "answer", steps)]}
        raw["methods"] = {"after": after, **raw["methods"]}
        return load_comparison(write(tmp_path, raw))

    settings = comparison("rim/grounding")
    plan = make_plan(settings)  # 2 steps of grounding and 4, as many as the others have
    assert [run.method for run in plan] == ["base", "direct", "rim", "after"]
    base, _, rim, after = plan
    folder = rim.folder.path / "stages" / "01-grounding" / "final"
    assert after.recipe.model.base == str(folder)
    assert after.starts == [rim, base] and choose(settings, plan, ["after"]) == [base, rim, after]
    with pytest.raises(ConfigError, match="after 7 steps and 56 examples"):
        make_plan(comparison("rim/grounding", 5))
    for start, message in (
        ("rim/groundin", r"methods.after.from: no 'groundin' here, there are grounding, refine"),
        ("rmi/grounding", r"methods.after.from: no 'rmi' here"),
        ("after/after", "itself begins with a stage of a method"),
    ):
        with pytest.raises(ConfigError, match=message):
            comparison(start)
    short = trial(settings, 6)
    assert [sum(s.max_steps or 0 for s in r.recipe.stages) for r in make_plan(short)] == [
        6,
        6,
        6,
        4,
    ]

    tokens = comparison("rim/grounding", budget={"kind": "tokens"})
    stages = [{"stage": "grounding", "tokens": 400, "steps": 2}, {"stage": "x", "tokens": 600}]
    total = {"tokens": 1000, "steps": 6}
    results = [
        {"method": "rim", "seed": 0, "training": {"total": total, "stages": stages}},
        {"method": "after", "seed": 0, "training": {"total": {"tokens": 600, "steps": 4}}},
    ]
    check_tokens(tokens, "chains", results)
    results[1]["training"] = {"total": {"tokens": 1600, "steps": 4}}
    with pytest.raises(ConfigError, match="after trained on 2000 tokens, rim on 1000"):
        check_tokens(tokens, "chains", results)


def test_an_adapter_is_no_base_to_be_rounded(tmp_path):
    raw = raw_comparison(tmp_path)
    raw["starts"]["base"]["model"] = {"base": "some/model", "tuning": "lora"}
    raw["common"]["model"] = {"tuning": "lora", "quantize": "4bit"}
    with pytest.raises(ConfigError, match=r"methods.direct: model.quantize rounds a base"):
        make_plan(load_comparison(write(tmp_path, raw)))


def test_what_a_start_started_from_is_remembered(tmp_path):
    settings = chained(tmp_path)
    result, failures = run_comparison(settings, QUIET)
    assert not failures
    assert result["tasks"]["chains"]["starts"]["base"]["methods"] == ["direct", "rim"]
    assert result["tasks"]["chains"]["starts"]["grounded"]["methods"] == ["rim"]
    assert sum_up(settings)["tasks"] == result["tasks"]
    other = chained(tmp_path, "starts.base.stages.solutions.max_steps=3")
    rim = make_plan(other)[-1]
    message = r"another earlier_starts \(base-seed0.stages.solutions.max_steps: 2, now 3\)"
    with pytest.raises(ConfigError, match=message):
        refuse_changes(other, [rim])
    assert rim.result is not None
    rim.result.unlink()  # a model without a result knows it, too
    with pytest.raises(ConfigError, match=message):
        refuse_changes(other, [rim])
    refuse_changes(settings, make_plan(settings)[-1:])


def test_settings_of_the_comparison_may_not_stand_in_a_method(tmp_path):
    with pytest.raises(ConfigError, match=r"methods.rim: 'seed' is set by the comparison"):
        make_plan(settings_of(tmp_path, "methods.rim.seed=3"))


def test_workers_read_the_settings_that_their_parent_has(tmp_path):
    """What was set stays told from what is default: of a task's data, and of columns."""
    data = tmp_path / "d.jsonl"
    rows = [{"question": f"{i}?", "answer": str(i), "steps": ["s"]} for i in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = raw_comparison(tmp_path)
    raw["tasks"]["chains"]["data"] = {"train": {"format": "jsonl", "path": str(data)}}
    raw["common"]["data"] = {"holdout": 7}
    settings = load_comparison(write(tmp_path, raw))
    (tmp_path / "worker.yaml").write_text(dump_yaml(settings, only_set=True))
    again = make_plan(load_comparison(tmp_path / "worker.yaml"))
    for ours, theirs in zip(make_plan(settings), again, strict=True):
        assert ours.recipe == theirs.recipe and theirs.recipe.data.holdout == 7
        assert not theirs.recipe.data.train.columns.model_fields_set


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


# --- test questions ------------------------------------------------------------------------------


def test_selection_that_leaves_no_question_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "train", None)
    settings = settings_of(tmp_path, selection={"held_out": 20})
    with pytest.raises(ConfigError, match="held_out 20 leaves nothing to score of 20 test"):
        run_comparison(settings, QUIET)


@pytest.mark.parametrize("kind", ["train", "validation"])
def test_a_test_question_that_was_trained_on_is_refused_before_training(
    tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(measure, "train", None)
    raw = raw_comparison(tmp_path)
    known = {"question": "1+1=", "steps": ["1+1=2"], "answer": 2}
    other = {"question": "1+2=", "steps": ["1+2=3"], "answer": 3}
    for name, rows in {"known": [other, known], "other": [other | {"question": "2+1="}]}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    kinds = {"train": "other", "validation": "other"} | {kind: "known"}
    raw["tasks"]["chains"]["data"] = {
        part: {"format": "jsonl", "path": str(tmp_path / f"{name}.jsonl")}
        for part, name in kinds.items()
    }
    test = {"format": "jsonl", "path": str(tmp_path / "test.jsonl")}
    (tmp_path / "test.jsonl").write_text(json.dumps(known | {"question": " 1+1=\n"}))
    raw["tasks"]["chains"]["extra_tests"] = {"seen": test}
    settings = load_comparison(write(tmp_path, raw))
    word = {"train": "training", "validation": "validation"}[kind]
    message = rf"test.jsonl, line 1 \(of seen\) is also the {word} question .*known.jsonl, line 2"
    with pytest.raises(DataError, match=message):
        run_comparison(settings, QUIET)
    assert not settings.folder.exists()


# --- the demo is the comparison ------------------------------------------------------------------


def test_the_demo_trains_as_the_comparison_of_the_same_task_does(tmp_path):
    from rim.study.demo import demo_recipes

    def relevant(recipe):
        raw = recipe.model_dump(mode="json")
        del raw["name"], raw["runs_dir"]
        if raw["model"]["base"]:
            raw["model"]["base"] = "the start"
        for each in raw["stages"]:  # the demo's may end early, and the next takes its steps
            del each["patience"], each["unused_steps"]
        return raw

    comparison = load_comparison(ROOT / "recipes" / "compare_arithmetic.yaml")
    plan = {run.method: run.recipe for run in make_plan(comparison) if run.seed == 0}
    demo = demo_recipes(0, tmp_path)
    for name in ("base", "direct", "rim"):
        assert relevant(plan[name]) == relevant(demo[name])


def test_an_extending_comparison_leaves_out_a_task_or_a_method_with_null(tmp_path):
    raw = raw_comparison(tmp_path)
    raw["tasks"]["more"] = raw["tasks"]["chains"]
    base = write(tmp_path, raw)
    (tmp_path / "less").mkdir()
    change = {"extends": str(base), "tasks": {"chains": None}, "methods": {"direct": None}}
    settings = load_comparison(write(tmp_path / "less", change))
    assert (list(settings.tasks), list(settings.methods)) == (["more"], ["rim"])
