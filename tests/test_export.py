"""An exported folder is the trained run: same prompts, same answers, on transformers alone."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
import sys
from pathlib import Path

import jinja2
import pytest
import torch
import warm
from conftest import EXAMPLES, tiny_model
from export_models import KINDS, RAGGED, checked_in_process, make_run, prompt_format
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import filter_repo_objects
from test_tokens import HOSTILE
from transformers import AutoModelForCausalLM, AutoTokenizer

import rim
from rim.config import ConfigError, MemoryConfig, PromptFormat, TemplatesConfig
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.deploy.export import check, export_run, plan_push, push
from rim.deploy.export.files import write_model
from rim.deploy.export.record import check_exportable
from rim.deploy.export.template import block_text, build_template
from rim.infer.reasoner import load

HARMLESS = [
    "hi",
    "  blanks around \n",
    "",
    "ünïcode 漢字 🙂 \u200b",
    "{{ 7*7 }} {% if x %} {# c #} 'quotes' \"and\" \\n",
    "word " * 2000,
]
ADAPTED = ["gpt2", "llama chat", "qwen chat", "llama 2 chat", "mistral base"]
WRONG_NUMBERS = [-1, 65, 10**9, 1.0, 2.5, "4", "four", True, False, None, [1]]


#: As `rim eval` writes it, as far as the model card reads it.
EVALUATION = {
    "data": {"name": "a.jsonl"},
    "settings": {"blocks": 3},
    "summary": {
        "questions": 10,
        "final": {"accuracy": 0.5, "low": 0.25, "high": 0.75},
    },
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def encoder_of(kind: str, plain_tokenizer, wanted: PromptFormat | None = None) -> PromptEncoder:
    tokenizer, wanted = KINDS[kind][1](plain_tokenizer), wanted or prompt_format(kind)
    add_memory_tokens(tokenizer, wanted.memory)
    return PromptEncoder(tokenizer, wanted)


def exported_tokenizer(encoder: PromptEncoder):
    tokenizer = copy.deepcopy(encoder.tokenizer)
    tokenizer.chat_template = build_template(encoder)
    return tokenizer


def ids(tokenizer, messages, **arguments):
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False, **arguments
    )


@pytest.fixture(scope="session")
def exported(plain_tokenizer, tmp_path_factory):
    """One adapted run per family, exported once: name -> (run folder, exported folder)."""
    folder = tmp_path_factory.mktemp("exports")
    found = {}
    for kind in ADAPTED:
        run = make_run(kind, plain_tokenizer, folder / kind, adapter=True)
        (run / "evaluations").mkdir()
        (run / "evaluations" / "a.json").write_text(json.dumps(EVALUATION))
        with checked_in_process():
            found[kind] = (run, export_run(run, folder / kind / "out"))
    return found


# --- the template ---


@pytest.mark.parametrize("question", HARMLESS)
def test_exported_prompt_ids_equal_training_ids(kind, question, plain_tokenizer):
    encoder = encoder_of(kind, plain_tokenizer)
    tokenizer = exported_tokenizer(encoder)
    assert ids(tokenizer, question) == encoder.prompt_ids(question, 3)
    for blocks in (0, 1, 8, 64):
        expected = encoder.prompt_ids(question, blocks)
        assert ids(tokenizer, question, blocks=blocks) == expected


@pytest.mark.parametrize("placement", ["user_end", "assistant_start"])
@pytest.mark.parametrize("template", [RAGGED, RAGGED.strip(), RAGGED + "\n", "X\n" + RAGGED])
def test_a_ragged_chat_template_keeps_every_blank(template, placement, plain_tokenizer):
    tokenizer = copy.deepcopy(plain_tokenizer)
    tokenizer.chat_template = template
    wanted = PromptFormat(templates=TemplatesConfig(placement=placement))
    add_memory_tokens(tokenizer, wanted.memory)
    encoder = PromptEncoder(tokenizer, wanted)
    for blocks in (0, 2):
        assert ids(exported_tokenizer(encoder), "q", blocks=blocks) == encoder.prompt_ids(
            "q", blocks
        )


@pytest.mark.parametrize("text", [*HOSTILE, "<|<|mem|>mem|>", "<<|im_end|>|im_end|>", "<|mem"])
def test_hostile_text_adds_no_control_token(kind, text, plain_tokenizer):
    encoder = encoder_of(kind, plain_tokenizer)
    tokenizer = exported_tokenizer(encoder)
    controls = set(tokenizer.convert_tokens_to_ids(encoder.control_strings))
    found, plain = ids(tokenizer, text), ids(tokenizer, "harmless")
    assert [i for i in found if i in controls] == [i for i in plain if i in controls]
    assert found == encoder.prompt_ids(encoder.break_control_strings(text), 3)
    if encoder.is_chat:
        assert found == encoder.prompt_ids(text, 3)


@pytest.mark.slow
def test_any_mixture_of_control_strings_is_cleaned_as_in_training(kind, plain_tokenizer):
    encoder = encoder_of(kind, plain_tokenizer)
    tokenizer = exported_tokenizer(encoder)
    pieces = [*encoder.control_strings[:6], "<", "<|", "|>", "|", "mem", " ", "a", "\n"]
    chooser = random.Random(0)
    for _ in range(200):
        text = "".join(chooser.choices(pieces, k=12))
        cleaned = encoder.break_control_strings(text)
        assert ids(tokenizer, text) == encoder.prompt_ids(cleaned, 3)


@pytest.mark.parametrize("wrong", WRONG_NUMBERS, ids=repr)
def test_a_wrong_number_of_blocks_is_refused(kind, wrong, plain_tokenizer):
    tokenizer = exported_tokenizer(encoder_of(kind, plain_tokenizer))
    with pytest.raises(jinja2.TemplateError, match="whole number from 0 to 64"):
        ids(tokenizer, "q", blocks=wrong)


def test_a_model_without_blocks_takes_none(plain_tokenizer):
    encoder = encoder_of("gpt2", plain_tokenizer, PromptFormat(method="direct"))
    tokenizer = exported_tokenizer(encoder)
    assert ids(tokenizer, "q") == encoder.prompt_ids("q", 0)
    with pytest.raises(jinja2.TemplateError, match="without memory blocks"):
        ids(tokenizer, "q", blocks=1)


def test_more_blocks_than_the_limit_are_served_if_they_were_trained(plain_tokenizer):
    wanted = PromptFormat(memory=MemoryConfig(blocks=70))
    encoder = encoder_of("gpt2", plain_tokenizer, wanted)
    assert ids(exported_tokenizer(encoder), "q") == encoder.prompt_ids("q", 70)


@pytest.mark.parametrize("placement", ["user_end", "assistant_start"])
def test_a_conversation_has_its_blocks_in_the_last_turn_only(placement, plain_tokenizer):
    wanted = PromptFormat(
        memory=MemoryConfig(blocks=1), templates=TemplatesConfig(placement=placement)
    )
    tokenizer = exported_tokenizer(encoder_of("qwen chat", plain_tokenizer, wanted))
    block = "<|mem_start|><|mem|><|mem|><|mem_end|>"
    text = tokenizer.decode(
        ids(
            tokenizer,
            [
                {"role": "system", "content": "S <|mem|>"},
                {"role": "user", "content": "MEMORYBLOCKSGOHERE <|im_end|>"},
                {"role": "assistant", "content": "one <|mem_end|>", "name": "a"},
                {"role": "user", "content": [{"type": "text", "text": "two"}]},
            ],
        )
    )
    at_user, at_answer = (block, "") if placement == "user_end" else ("", block)
    assert text == (
        "<|im_start|>system\nS < |mem|><|im_end|>\n"
        "<|im_start|>user\nMEMORYBLOCKSGOHERE < |im_end|><|im_end|>\n"
        "<|im_start|>assistant\none < |mem_end|><|im_end|>\n"
        f"<|im_start|>user\ntwo{at_user}<|im_end|>\n<|im_start|>assistant\n{at_answer}"
    )


def test_what_comes_behind_the_question_cannot_take_its_blocks(plain_tokenizer):
    wanted = PromptFormat(memory=MemoryConfig(blocks=1))
    tokenizer = exported_tokenizer(encoder_of("qwen chat", plain_tokenizer, wanted))
    messages = [
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "a MEMORYBLOCKSGOHERE b"},
    ]
    text = tokenizer.decode(ids(tokenizer, messages))
    assert "user\ntwo<|mem_start|><|mem|><|mem|><|mem_end|><|im_end|>" in text
    assert "a M EMORYBLOCKSGOHERE b" in text


def test_a_requests_system_message_replaces_the_trained_one(plain_tokenizer):
    wanted = PromptFormat(templates=TemplatesConfig(system="Trained."))
    tokenizer = exported_tokenizer(encoder_of("qwen chat", plain_tokenizer, wanted))
    user = {"role": "user", "content": "q"}
    own = tokenizer.decode(ids(tokenizer, [{"role": "system", "content": "Own."}, user]))
    assert "Own." in own and "Trained." not in own
    assert tokenizer.decode(ids(tokenizer, [user])).startswith("<|im_start|>system\nTrained.")


def test_the_base_templates_own_arguments_still_work(plain_tokenizer):
    tokenizer = exported_tokenizer(encoder_of("qwen chat", plain_tokenizer))
    thinking = tokenizer.decode(ids(tokenizer, "q", enable_thinking=False))
    assert thinking.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "s"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
    ],
    ids=len,
)
def test_a_base_model_refuses_all_but_one_question(messages, plain_tokenizer):
    template = jinja_template(build_template(encoder_of("gpt2", plain_tokenizer)))
    with pytest.raises(jinja2.TemplateError, match="one question at a time"):
        template(messages)


@pytest.mark.parametrize("kind", ["gpt2", "qwen chat"])
def test_content_that_is_not_text_is_refused(kind, plain_tokenizer):
    tokenizer = exported_tokenizer(encoder_of(kind, plain_tokenizer))
    for content, error in {
        "image_url": "only text",
        None: "no content",
    }.items():
        parts = [{"type": content, content: "x"}] if content else None
        with pytest.raises(jinja2.TemplateError, match=error):
            ids(tokenizer, [{"role": "user", "content": parts}])


def test_a_chat_without_a_question_is_refused(plain_tokenizer):
    tokenizer = exported_tokenizer(encoder_of("qwen chat", plain_tokenizer))
    with pytest.raises(jinja2.TemplateError, match="no user message"):
        ids(tokenizer, [{"role": "system", "content": "s"}])


def test_tools_cannot_bring_in_memory_tokens(plain_tokenizer):
    tokenizer = copy.deepcopy(plain_tokenizer)
    tokenizer.chat_template = (
        "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    add_memory_tokens(tokenizer, MemoryConfig())
    encoder = PromptEncoder(tokenizer, PromptFormat(memory=MemoryConfig(blocks=1)))
    tools = [{"name": "<|mem|> <|mem_start|>"}]
    text = tokenizer.decode(ids(exported_tokenizer(encoder), "q", tools=tools))
    assert text == ('[{"name": "< |mem|> < |mem_start|>"}]q<|mem_start|><|mem|><|mem|><|mem_end|>')


def test_transformers_own_cleaning_and_ours_agree_on_ordinary_text(kind, plain_tokenizer):
    encoder = encoder_of(kind, plain_tokenizer)
    tokenizer = exported_tokenizer(encoder)
    for question in HARMLESS:
        found = ids(tokenizer, question, sanitize_control_tokens=True)
        assert found == encoder.prompt_ids(question, 3)


def jinja_template(source: str):
    """The template in a bare Jinja, without what transformers adds around it."""

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    template = environment.from_string(source)
    return lambda messages, **arguments: template.render(messages=messages, **arguments)


# --- the folder ---


@pytest.mark.slow
@pytest.mark.parametrize("kind", ADAPTED)
def test_an_adapted_run_and_its_export_answer_the_same(kind, exported):
    run, report = exported[kind]
    assert report.check.max_logit_difference <= 1e-4
    assert {0, 2, 3, 8} <= set(report.check.blocks)
    tokenizer = AutoTokenizer.from_pretrained(report.folder)
    model = AutoModelForCausalLM.from_pretrained(report.folder)
    reasoner = load(run, device="cpu")
    for example in EXAMPLES:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": example.question}],
            add_generation_prompt=True,
            blocks=4,
            return_tensors="pt",
            return_dict=True,
        )
        output = model.generate(**inputs, max_new_tokens=12)
        answer = tokenizer.decode(
            output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert answer == reasoner.ask(example.question, blocks=4, max_new_tokens=12).text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "llama chat", "qwen chat"])
def test_a_pipeline_takes_the_number_of_blocks(kind, exported):
    from transformers import pipeline

    run, report = exported[kind]
    answer = pipeline("text-generation", str(report.folder), device="cpu")(
        [{"role": "user", "content": "2+2?"}],
        max_new_tokens=12,
        tokenizer_encode_kwargs={"blocks": 2},
    )[0]["generated_text"][-1]["content"]
    assert answer == load(run, device="cpu").ask("2+2?", blocks=2, max_new_tokens=12).text


def read(report, name):
    return json.loads((report.folder / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["gpt2", "llama chat", "qwen chat"])
def test_the_files_say_what_older_readers_need(kind, exported):
    _, report = exported[kind]
    tokenizer = read(report, "tokenizer_config.json")
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    memory = {"<|mem_start|>", "<|mem|>", "<|mem_end|>"}
    assert memory <= set(tokenizer["additional_special_tokens"])
    assert tokenizer["add_bos_token"] is (kind == "llama chat")
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
    assert ("response_template" in tokenizer) is (kind == "qwen chat")
    config = read(report, "config.json")
    if kind == "gpt2":
        assert config["n_ctx"] == config["n_positions"] == 512
    else:
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
        assert config["rope_scaling"] is None
    generation = read(report, "generation_config.json")
    assert "max_new_tokens" not in generation and generation["do_sample"] is False
    vocabulary = AutoTokenizer.from_pretrained(report.folder).get_vocab()
    assert set(generation["suppress_tokens"]) == {vocabulary[string] for string in memory}
    weights = [f.name for f in report.folder.iterdir() if f.suffix in (".safetensors", ".bin")]
    assert weights == ["model.safetensors"]


def test_scaled_positions_are_written_in_both_dialects(plain_tokenizer, tmp_path):
    encoder = encoder_of("llama base", plain_tokenizer)
    model = tiny_model("llama", encoder.tokenizer)
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}
    model.config.rope_parameters = rope
    write_model(model, encoder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_theta"] == 500000.0
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path).config.rope_parameters
    assert {key: reloaded[key] for key in rope} == rope
    # A part of every head may be turned: version 4 would take its class's own share.
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 1e4} | {
        "partial_rotary_factor": 0.5
    }
    write_model(model, encoder, tmp_path / "part")
    config = json.loads((tmp_path / "part" / "config.json").read_text())
    assert config["partial_rotary_factor"] == config["rotary_pct"] == 0.5
    assert (config["rotary_emb_base"], config["rope_scaling"]) == (1e4, None)


def test_the_card_shows_how_to_ask_and_what_was_measured(exported, monkeypatch, capsys):
    folder = exported["gpt2"][1].folder
    card = (folder / "README.md").read_text()
    assert "| a.jsonl | 10 | 3 | 50.0 (25.0-75.0) |" in card
    assert "library_name: transformers" in card
    code = card.split("```python\n")[1].split("```")[0]
    assert "blocks=3" in code
    monkeypatch.chdir(folder.parent)
    monkeypatch.setitem(sys.modules, "rim", None)  # an import would fail
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_nothing_is_overwritten(plain_tokenizer, tmp_path):
    run = make_run("gpt2", plain_tokenizer, tmp_path / "run")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        export_run(run, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "bidirectional"}, "both directions"),
        ({"readouts_see_question": False}, "hides the question"),
    ],
)
def test_what_no_stock_engine_does_is_refused(changes, message, plain_tokenizer, tmp_path):
    wanted = PromptFormat(memory=MemoryConfig(**changes))
    run = make_run("gpt2", plain_tokenizer, tmp_path / "run", wanted=wanted)
    with pytest.raises(ConfigError, match=f"{message}.*no stock engine"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("method", "passes"), [("coconut", 1), ("codi", 1), ("rim", 2)])
def test_methods_that_feed_hidden_states_back_are_refused(
    method, passes, plain_tokenizer, tmp_path
):
    fed_back = PromptFormat(method=method, memory=MemoryConfig(passes=passes))
    run = make_run("gpt2", plain_tokenizer, tmp_path / "run", wanted=fed_back)
    with pytest.raises(ConfigError, match="feeds hidden states back"):
        check_exportable(run / "model")


@pytest.mark.parametrize("framing", ["once", "none"])
@pytest.mark.parametrize("kind", ["gpt2", "qwen chat"])
def test_pause_tokens_are_exported_under_every_framing(kind, framing, plain_tokenizer):
    memory = MemoryConfig(blocks=3, tokens=2, framing=framing)
    encoder = encoder_of(kind, plain_tokenizer, PromptFormat(method="pause", memory=memory))
    tokenizer = exported_tokenizer(encoder)
    for count in (0, 1, 3, 7):
        assert ids(tokenizer, "a question", blocks=count) == encoder.prompt_ids("a question", count)


# --- the document ---


def document_code() -> list[str]:
    text = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    # The lines that start an engine are tested with one, in test_serve_command.py.
    return [lines for lines in code if "serving" not in lines]


@pytest.mark.slow
def test_the_documents_first_lines_run_on_transformers_alone(exported, tmp_path):
    (tmp_path / "exported").symlink_to(exported["gpt2"][1].folder)
    hidden = "import sys\nfor name in [*sys.modules, 'rim']:\n"
    hidden += "    if name.partition('.')[0] == 'rim': sys.modules[name] = None\n"
    code = hidden + "".join(document_code()[:2])
    result = warm.run([sys.executable, "-c", code], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = load(exported["gpt2"][0], device="cpu").ask("3+4-5=", blocks=4, max_new_tokens=32)
    assert result.stdout.splitlines() == [answer.text] * 2


@pytest.mark.slow
def test_the_documents_export_in_python_runs(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo-seed0").mkdir(parents=True)
    (tmp_path / "runs" / "demo-seed0" / "rim").symlink_to(exported["gpt2"][0])
    # Its self-check has a process of its own, as it has for users.
    exec(compile(document_code()[2], "serving.md", "exec"), {})
    assert (tmp_path / "exported-too" / "model.safetensors").exists()


# --- the self-check ---


def sabotage_weights(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] += 0.1
    model.save_pretrained(folder)


def sabotage_template(old: str, new: str):
    def change(folder: Path) -> None:
        file = folder / "chat_template.jinja"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    return change


def sabotage_suppression(folder: Path) -> None:
    file = folder / "generation_config.json"
    config = json.loads(file.read_text())
    config["suppress_tokens"] = list(range(280))
    file.write_text(json.dumps(config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        (sabotage_weights, "logits differ"),
        (sabotage_suppression, "the answer is"),
        (sabotage_template("[''", "['x'"), "the prompt is"),
        (sabotage_template("is defined else 3", "is defined else 2"), "the prompt is"),
        (sabotage_template("['<|mem|>', '< |mem|>']", "['<|mem|>', '<|mem|>']"), "adds control"),
        (sabotage_template("'< |endoftext|>'", "'endoftext'"), "is not cleaned"),
        (sabotage_template("rim_count > 64", "rim_count > 640"), "the template took"),
    ],
    ids=["weights", "suppression", "question", "default", "memory", "cleaning", "number"],
)
def test_the_self_check_notices(sabotage, message, plain_tokenizer, tmp_path):
    reasoner = load(make_run("gpt2", plain_tokenizer, tmp_path / "run"), device="cpu")
    folder = tmp_path / "out"
    write_model(reasoner.model, reasoner.encoder, folder)
    sabotage(folder)
    with checked_in_process(), pytest.raises(ConfigError, match=message):
        check.check_export(folder, reasoner.model, reasoner.encoder, check.QUESTIONS[:3])


@pytest.mark.slow
def test_a_failed_self_check_leaves_nothing_behind(plain_tokenizer, tmp_path, monkeypatch):
    run = make_run("gpt2", plain_tokenizer, tmp_path / "run")
    broken = "{{- raise_exception('no') -}}"
    monkeypatch.setattr("rim.deploy.export.files.build_template", lambda encoder: broken)
    with pytest.raises(ConfigError, match="does not run on transformers alone"):
        export_run(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_a_template_that_adds_nothing_to_a_question_is_exported(plain_tokenizer, tmp_path):
    """As the demo's: the empty question of the self-check has no tokens there."""
    templates = TemplatesConfig(question="{question}", answer="{answer}")
    wanted = prompt_format("gpt2").model_copy(update={"templates": templates})
    run = make_run("gpt2", plain_tokenizer, tmp_path / "run", wanted=wanted)
    with checked_in_process():
        assert export_run(run, tmp_path / "out").folder.exists()


def test_a_model_too_small_for_its_blocks_is_told_so(plain_tokenizer, tmp_path):
    encoder = encoder_of("gpt2", plain_tokenizer)
    model = tiny_model("gpt2", encoder.tokenizer, max_positions=16)
    with pytest.raises(ConfigError, match="16 positions"):
        check.check_export(tmp_path, model, encoder)


# --- push ---


def test_a_push_sends_the_checked_files_and_no_others(exported, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exported["gpt2"][1].folder, folder)
    checked = sorted(f.name for f in folder.iterdir())
    total = sum(f.stat().st_size for f in folder.iterdir())
    (folder / "notes").mkdir()
    for later in ("notes/secret.env", "notes/config.json", "model.gguf"):
        (folder / later).write_text("later")
    plan = plan_push(folder, "someone/tiny")
    assert plan.private and plan.total_bytes == total
    assert plan.left_out == ("model.gguf", "notes/")
    calls = []

    class Hub:
        def create_repo(self, repo, **options):
            calls.append((repo, options["private"]))
            return f"https://hub/{repo}"

        def upload_folder(self, *, repo_id, folder_path, commit_message, allow_patterns):
            files = [f for f in folder_path.rglob("*") if f.is_file()]
            names = [f.relative_to(folder_path).as_posix() for f in files]
            sent = filter_repo_objects(names, allow_patterns=allow_patterns)
            calls.append((repo_id, sorted(sent)))

    assert push(plan, Hub()) == "https://hub/someone/tiny"
    assert calls == [("someone/tiny", True), ("someone/tiny", checked)]
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        plan_push(folder, "tiny")
    with pytest.raises(ConfigError, match=r"the hub takes no repository 'me/my\.\.model'"):
        plan_push(folder, "me/my..model")

    class Away(Hub):
        def create_repo(self, repo, **options):
            raise HfHubHTTPError.__bases__[0]("no route")

    with pytest.raises(ConfigError, match="could not be reached: no route"):
        push(plan, Away())
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"config.json changed after the export; export again"):
        plan_push(folder, "someone/tiny")
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config.json changed after the export; export again"):
        plan_push(folder, "someone/tiny")
    with pytest.raises(ConfigError, match="not an exported folder"):
        plan_push(tmp_path, "someone/tiny")


def test_the_blocks_of_a_template_are_those_of_training(plain_tokenizer):
    text = block_text(encoder_of("gpt2", plain_tokenizer))
    assert text.block == "<|mem_start|><|mem|><|mem|><|mem_end|>"
    assert (text.opening, text.closing) == ("", "")


def test_the_package_offers_the_export():
    assert rim.export_run is export_run
