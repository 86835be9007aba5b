"""Recipes: inheritance, overrides, and mistakes that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rim.config import ConfigError, StageConfig
from rim.config.differences import difference
from rim.config.recipe_yaml import dump_yaml, load_recipe, read_recipe, recipe_from_dict

ROOT = Path(__file__).parents[1]
RAW = {
    "name": "x",
    "method": "rim",
    "data": {"train": {"format": "jsonl", "path": "a.jsonl"}},
    "model": {"base": "gpt2"},
    "stages": [{"name": "one", "objective": "steps", "max_steps": 5}],
}


def write(tmp_path, raw, name="r.yaml"):
    path = tmp_path / name
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return path


RECIPES = [p for p in sorted(ROOT.glob("recipes/*.yaml")) if not p.name.startswith("compare_")]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_recipe_of_the_project_is_valid_and_survives_writing(path, tmp_path, monkeypatch):
    monkeypatch.setenv("RIM_DATA", str(tmp_path))
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert load_recipe(write(tmp_path, dump_yaml(recipe))) == recipe


def test_of_the_two_lengths_of_a_stage_the_later_one_counts(tmp_path):
    raw = {**RAW, "stages": [{"name": "one", "objective": "steps", "epochs": 2}]}
    path = write(tmp_path, raw)

    def lengths(recipe):
        return [(s.max_steps, s.epochs) for s in recipe.stages]

    assert lengths(load_recipe(path, ("stages.one.max_steps=3",))) == [(3, None)]
    both = ("stages.one.max_steps=3", "stages.one.epochs=null")
    assert lengths(load_recipe(path, both)) == [(3, None)]
    assert lengths(load_recipe(path, both[::-1])) == [(3, None)]
    laid_over = {"extends": "r.yaml", "stages": {"one": {"max_steps": 4}}}
    assert lengths(load_recipe(write(tmp_path, laid_over, "over.yaml"))) == [(4, None)]
    laid_over["stages"]["one"] = {"max_steps": 4, "epochs": 1}
    with pytest.raises(ConfigError, match=r"stages\.one: give exactly one"):
        load_recipe(write(tmp_path, laid_over, "over.yaml"))


def test_a_stage_written_out_for_each_value_is_named_by_its_own_name(tmp_path):
    stages = [
        {"name": "less", "objective": "remaining", "for_each": {"removed_steps": [1, 2]}},
        {"name": "all", "objective": "remaining", "removed_steps": "all", "warmup": 2},
    ]
    raw = {**RAW, "method": "coconut", "stages": [s | {"max_steps": 5} for s in stages]}
    with pytest.raises(ConfigError, match=r"stages\.all\.warmup") as error:
        load_recipe(write(tmp_path, raw))
    assert "stages.less" not in str(error.value)


def test_a_difference_names_a_stage_or_where_names_repeat_its_number():
    old = [{"name": "a", "max_steps": 1}, {"name": "b", "max_steps": 2}]
    new = [old[0], old[1] | {"max_steps": 3}]
    assert difference({"stages": old}, {"stages": new}) == "stages.b.max_steps: 2, now 3"
    same = [{"name": "a", "x": 1}, {"name": "a", "x": 2}]
    assert difference(same, [same[0] | {"x": 9}, same[1]]) == "0.x: 1, now 9"


def test_only_lengths_of_stages_replace_each_other(tmp_path):
    write(tmp_path, {"axes": {"epochs": {"a": 1}, "max_steps": {"b": 2}}}, "base.yaml")
    over = write(tmp_path, {"extends": "base.yaml", "axes": {"max_steps": {"b": 3}}})
    assert read_recipe(over)["axes"] == {"epochs": {"a": 1}, "max_steps": {"b": 3}}


def test_a_trial_of_a_recipe_has_a_run_of_its_own(tmp_path):
    stages = [
        {"name": "one", "objective": "steps", "epochs": 3, "evaluate_every": 100},
        {"name": "two", "objective": "answer", "epochs": 1},
    ]
    path = write(tmp_path, {**RAW, "stages": stages})
    short = load_recipe(path, ("seed=4",), steps=8)
    assert (short.name, short.seed) == ("x-8steps", 4)
    lengths = [(s.max_steps, s.epochs, s.evaluate_every) for s in short.stages]
    assert lengths == [(6, None, 6), (2, None, 2)]
    with pytest.raises(ConfigError, match="2 stages, which need at least a step each"):
        load_recipe(path, steps=1)
    mixed = ("stages.one.max_steps=5",)
    with pytest.raises(ConfigError, match="some stages in epochs and some in steps"):
        load_recipe(path, mixed, steps=8)
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        load_recipe(path, ("stages.one.lerning_rate=1",), steps=8)
    with pytest.raises(ConfigError, match="for_each takes"):
        load_recipe(path, ("stages.one.for_each=3",), steps=8)


PAPER = [
    p
    for p in sorted(ROOT.glob("recipes/paper/*/*.yaml"))
    if p.stem != "base" and p.parent.name != "methods"
]


@pytest.mark.parametrize("path", PAPER, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_recipe_of_the_paper_is_valid_and_never_reads_a_test_split(path, tmp_path):
    recipe = load_recipe(path)
    assert recipe.name == f"paper_{path.parent.name}_{path.stem}"
    assert recipe.data.train.split == "train" and recipe.data.validation is None
    assert load_recipe(write(tmp_path, dump_yaml(recipe))) == recipe


def test_the_paper_has_every_base_with_every_method():
    found = {(p.parent.name, p.stem) for p in PAPER}
    for base in ("gpt2", "llama3.2-1b", "llama3.2-3b", "qwen3-0.6b"):
        assert {(base, m) for m in ("direct", "cot", "coconut", "rim", "rim_own_step")} <= found


def test_a_recipe_says_which_folder_to_name(monkeypatch):
    monkeypatch.delenv("RIM_DATA", raising=False)
    with pytest.raises(ConfigError, match="environment variable RIM_DATA, which is not set"):
        load_recipe(ROOT / "recipes" / "gsm8k_tiny.yaml")


def test_overrides_reach_lists_by_name_and_number(tmp_path):
    path = write(tmp_path, RAW)
    recipe = load_recipe(
        path,
        ("stages.one.learning_rate=1e-3", "stages.0.max_steps=7", "memory.blocks=3", "seed=4"),
    )
    assert recipe.stages[0].learning_rate == 1e-3
    assert recipe.stages[0].max_steps == 7
    assert (recipe.memory.blocks, recipe.seed) == (3, 4)


def test_overrides_that_are_not_yaml_are_text(tmp_path):
    path = write(tmp_path, RAW)
    overrides = ("templates.answer=#### {answer}", "model.base=[x", "name=2024-02-30")
    recipe = load_recipe(path, overrides)
    assert (recipe.templates.answer, recipe.model.base) == ("#### {answer}", "[x")
    assert recipe.name == "2024-02-30"


def test_an_override_changes_one_place_of_an_alias_alone(tmp_path):
    path = tmp_path / "shared.yaml"
    path.write_text("first: &one {stages: [{name: a, max_steps: 1}]}\nsecond: *one\n")
    raw = read_recipe(path, ("first.stages.a.max_steps=2",))
    assert raw["first"]["stages"] == [{"name": "a", "max_steps": 2}]
    assert raw["second"]["stages"] == [{"name": "a", "max_steps": 1}]
    path.write_text("first: &one [*one]\n")
    with pytest.raises(ConfigError, match="lists without end"):
        read_recipe(path)


def test_a_variant_states_only_its_difference(tmp_path):
    write(tmp_path, RAW, "base.yaml")
    variant = write(tmp_path, {"extends": "base.yaml", "name": "y", "model": {"revision": "v2"}})
    recipe = load_recipe(variant)
    assert (recipe.name, recipe.model.base, recipe.model.revision) == ("y", "gpt2", "v2")
    circle = write(tmp_path, {"extends": "c.yaml"}, "c.yaml")
    with pytest.raises(ConfigError, match="circle"):
        load_recipe(circle)


def test_a_recipe_may_differ_from_several_and_in_one_stage(tmp_path):
    stages = [{"name": "one", "objective": "steps", "max_steps": 5, "batch_size": 4}]
    write(tmp_path, RAW | {"stages": stages}, "method.yaml")
    write(tmp_path, {"model": {"base": "other"}, "seed": 3}, "size.yaml")
    raw = {
        "extends": ["method.yaml", "size.yaml"],
        "stages": {"one": {"learning_rate": 1e-3}},
    }
    recipe = load_recipe(write(tmp_path, raw))
    assert (recipe.model.base, recipe.seed) == ("other", 3)
    assert (recipe.stages[0].learning_rate, recipe.stages[0].batch_size) == (1e-3, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": {"two": {"max_steps": 1}}}, r"stages\.two: no item 'two' \(there are one\)"),
        ({"stages": {"one": 3}}, r"stages\.one: a mapping of what changes, got 3"),
        ({"extends": ["base.yaml", 3]}, "names a file, or several, got 3"),
    ],
)
def test_what_cannot_be_laid_over_a_base_is_named(tmp_path, change, message):
    write(tmp_path, RAW, "base.yaml")
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path, {"extends": "base.yaml"} | change))


def test_environment_variables_with_defaults(tmp_path, monkeypatch):
    path = write(tmp_path, RAW | {"runs_dir": "${SOME_PLACE:-here}"})
    monkeypatch.delenv("SOME_PLACE", raising=False)
    assert load_recipe(path).runs_dir == "here"
    monkeypatch.setenv("SOME_PLACE", "there")
    assert load_recipe(path).runs_dir == "there"
    with pytest.raises(ConfigError, match=r"NOT_SET_ANYWHERE.*not set"):
        load_recipe(write(tmp_path, RAW | {"runs_dir": "${NOT_SET_ANYWHERE}"}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("memory.blocks=0", r"memory\.blocks.* 1, got 0"),
        ("memory.tokens=0", r"memory\.tokens.* 1, got 0"),
        ("memory.block=3", r"unknown key 'memory\.block'; did you mean 'blocks'"),
        ("metod=rim", r"unknown key 'metod'; did you mean 'method'"),
        (
            "stages.one.lerning_rate=1",
            r"unknown key 'stages\.one\.lerning_rate'; did you mean 'learning_rate'",
        ),
        ("data.train.colums.question=a", r"did you mean 'columns'"),
        ("stages.two.max_steps=1", r"no item 'two' \(there are one\)"),
        ("seed", "wants key=value"),
        ("name.first=1", "name"),
        ("method=rum", r"method"),
        ("model.attention=flash_attention_2", "is for dtype: bfloat16 only"),
        ("model.scratch={}", "exactly one of 'base' and 'scratch'"),
        ("stages.one.max_steps=null", "exactly one of 'max_steps' and 'epochs'"),
        ("stages.one.objective=solution", "does not belong to method 'rim'"),
        ("stages.one.dropout=1.0", "dropout"),
        ("templates.answer=none", r"must contain \{answer\}"),
        ("memory.end_token=<|mem|>", "three different"),
        ("memory.end_token=' </m>'", "without blanks around them"),
        ("stages.one.betas=[0.9,1.0]", "betas"),
        (
            "stages.one={name: one, objective: answer, max_steps: 1, weighting: anneal_linear}",
            "only objective: steps has",
        ),
        ("seed=5000000000", "seed"),
        ("stages.one.trainer={logging_strategy: 'no'}", "cannot be passed on"),
        ("stages.one.micro_batch_size=3", "not a multiple"),
        ("data.train.path=null", "needs a path"),
        ("data.train.format=arithmetic", "arithmetic is generated and reads no file"),
        ("data.train.split=test", "split is for format: hub, not for"),
    ],
)
def test_mistakes_name_the_key_and_the_way_out(tmp_path, override, message):
    path = write(tmp_path, RAW)
    with pytest.raises(ConfigError, match=message):
        load_recipe(path, (override,))


@pytest.mark.parametrize("override", ["stages.one.micro_batch_size=3", "stages.one.dropout=1.0"])
def test_a_wrong_stage_is_not_called_a_missing_one(tmp_path, override):
    with pytest.raises(ConfigError) as error:
        load_recipe(write(tmp_path, RAW | {"stages": RAW["stages"][:1]}), (override,))
    assert "stages.one" in str(error.value) and "at least 1 item" not in str(error.value)
    with pytest.raises(ConfigError, match=r"stages: .*at least 1 item"):
        load_recipe(write(tmp_path, RAW | {"stages": []}))


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(ConfigError, match="no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="not a readable YAML"):
        load_recipe(write(tmp_path, "a: [1"))
    with pytest.raises(ConfigError, match="mapping"):
        load_recipe(write(tmp_path, "- 1"))
    with pytest.raises(ConfigError, match="stages is missing"):
        recipe_from_dict({key: value for key, value in RAW.items() if key != "stages"})


def test_settings_are_frozen():
    stage = StageConfig(name="a", objective="answer", max_steps=1)
    with pytest.raises(ValueError, match="frozen"):
        stage.max_steps = 2
