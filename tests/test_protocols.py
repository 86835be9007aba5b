"""Causal protocols, against hand-made passes and on machines whose truth is known."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import tiny_model
from test_controls import altered, layer_inputs

import rim.evaluate.protocols.interchange as interchange_module
import rim.evaluate.protocols.transplant as transplant_module
from rim.config import ConfigError, MemoryConfig, PromptFormat, TemplatesConfig
from rim.core.layout import Trunk
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.data.examples import DataError
from rim.data.sources import load_examples, task_source
from rim.evaluate.cache_interventions import BLOCKS, EVERYWHERE, Part, transplant
from rim.evaluate.protocols.asking import Asking, changed_by
from rim.evaluate.protocols.carriers import bands, carriers
from rim.evaluate.protocols.content import conditions, run_content
from rim.evaluate.protocols.interchange import run_interchange
from rim.evaluate.protocols.pairs import choose_pairs, closed_set, read_questions
from rim.evaluate.protocols.running import lines_of, run_protocol, task_of
from rim.evaluate.protocols.transplant import run_transplant
from rim.infer.prefill import Slot, prefill
from rim.infer.reasoner import Reasoner
from rim.report.heat_map import protocol_svg
from rim.report.page.causal import verdict_lines

K = 3
SOURCE = task_source("arithmetic", {"num_examples": 400, "modulus": 7, "min_operations": 3})
EXAMPLES = load_examples(SOURCE)
KNOWN = read_questions("arithmetic", SOURCE.task, EXAMPLES)


def encoder_for(tokenizer, answer="# {answer}", **memory):
    settings = MemoryConfig(**({"blocks": K, "tokens": 1} | memory))
    add_memory_tokens(tokenizer, settings)
    templates = TemplatesConfig(question="{question}", answer=answer)
    return PromptEncoder(
        tokenizer, PromptFormat(memory=settings, templates=templates, method="rim")
    )


@pytest.fixture(params=["#{answer}", "{answer}"])
def asking(request, family, tokenizer):
    encoder = encoder_for(tokenizer, request.param)
    reasoner = Reasoner(tiny_model(family, encoder.tokenizer), encoder)
    return Asking(reasoner, K, closed_set(KNOWN), batch_size=8)


@pytest.fixture
def pairs(asking):
    return choose_pairs(KNOWN, asking.reasoner.encoder, 12, 0)


# --- pairs ---------------------------------------------------------------------------------------


def test_a_pairs_mixture_has_an_answer_of_its_own(tokenizer):
    encoder = encoder_for(tokenizer)
    pairs = choose_pairs(KNOWN, encoder, 100, 0)
    assert len(pairs) == 100 and len({p.recipient.question for p in pairs}) == 100
    for pair in pairs:
        question, t = pair.recipient.question, pair.step
        # By another way: what is left of the recipient's chain, behind the source's value.
        terms = question.removesuffix("=").replace("+", " +").replace("-", " -").split()
        mixed = str((int(pair.source.value(t)) + sum(map(int, terms[t + 1 :]))) % 7)
        assert pair.counterfactual == mixed
        answers = {mixed, pair.recipient.worked.answer, pair.source.worked.answer}
        assert len(answers) == 3
        assert len(question) == len(pair.source.question)
        assert pair.same_value.value(t) == pair.source.value(t)
        assert pair.same_value is not pair.source
        assert pair.same_answer.worked.answer == pair.source.worked.answer
        assert pair.same_answer.value(t) != pair.source.value(t)
        assert pair.unrelated.value(t) != pair.source.value(t)
        assert pair.unrelated.worked.answer not in answers
        led = pair.recipient.worked.continue_from(t, pair.unrelated.value(t))
        assert led not in (mixed, pair.recipient.worked.answer)  # right by accident
    counts = Counter(pair.step for pair in pairs)
    assert set(counts) == {1, 2, 3} and counts[1] - counts[2] <= 1
    assert choose_pairs(KNOWN, encoder, 100, 0) == pairs != choose_pairs(KNOWN, encoder, 100, 1)


def test_with_three_answers_no_question_is_unrelated(tokenizer):
    source = task_source("arithmetic", {"num_examples": 200, "modulus": 3, "min_operations": 3})
    known = read_questions("arithmetic", source.task, load_examples(source))
    with pytest.raises(DataError, match="fewer than four different answers allows none"):
        choose_pairs(known, encoder_for(tokenizer), 20, 0)


def test_questions_alone_in_their_length_have_nobody_elses_blocks(tokenizer):
    encoder = encoder_for(tokenizer)
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    asking = Asking(reasoner, K, closed_set(KNOWN), batch_size=1)
    length = len(KNOWN[0].question)
    alone = next(k for k in KNOWN if len(k.question) != length)
    together = [k for k in KNOWN if len(k.question) == length][:4]
    result = run_content(asking, [*together, alone], "arithmetic", SOURCE.task)
    assert (result["questions"], result["left_out"], result["batch_size"]) == (4, 1, 3)
    with pytest.raises(DataError, match="no two of these questions are equally long"):
        run_content(asking, [together[0], alone], "arithmetic", SOURCE.task)


def test_data_of_another_task_or_too_few_are_refused(tokenizer):
    with pytest.raises(ConfigError, match="'graph_search' does not say what follows"):
        read_questions("graph_search", SOURCE.task, EXAMPLES)
    other = task_source("arithmetic", {"modulus": 5})
    with pytest.raises(DataError, match=r"has the answer .* with these knobs"):
        read_questions("arithmetic", other.task, EXAMPLES)
    with pytest.raises(DataError, match="cannot be read"):
        read_questions("pointers", task_source("pointers", {}).task, EXAMPLES)
    with pytest.raises(DataError, match="allow 0 pairs"):
        choose_pairs(KNOWN[:3], encoder_for(tokenizer), 40, 0)


# --- asking --------------------------------------------------------------------------------------


@torch.no_grad()
def test_answers_have_the_logprobs_of_a_plain_pass(asking):
    encoder, model = asking.reasoner.encoder, asking.reasoner.model
    questions = [k.question for k in KNOWN[:5]]
    logprobs_NA = asking.logprobs(questions)
    opening = encoder.text_ids(encoder.answer_marker) if encoder.num_marker_tokens else []
    for row_A, question in zip(logprobs_NA, questions, strict=True):
        ids = torch.tensor([encoder.prompt_ids(question, K) + opening])
        expected = model(input_ids=ids).logits[0, -1].log_softmax(-1)
        tokens = [encoder.answer_ids(answer)[len(opening)] for answer in asking.answers]
        torch.testing.assert_close(row_A, expected[tokens], atol=1e-4, rtol=1e-4)


def test_blocks_that_run_with_the_readout_change_nothing(asking):
    questions = [k.question for k in KNOWN[:6]]
    whole = asking.logprobs(questions)
    for live in (1, 2, 3):
        torch.testing.assert_close(
            asking.logprobs(questions, lambda filled: None, live=live), whole, atol=1e-4, rtol=1e-4
        )
        decoded = asking.decode(questions, lambda filled: None, live=live, max_new_tokens=3)
        assert decoded == asking.decode(questions, max_new_tokens=3)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["block", "up_to"])
def test_a_block_with_later_ones_running_again_equals_altered_layer_inputs(asking, pairs, kind):
    """One plain pass over the recipient in which the part's tokens have the source's inputs."""
    encoder, model = asking.reasoner.encoder, asking.reasoner.model
    pair, part = pairs[0], Part(kind, 2)
    partners = {pair.recipient.question: pair.source.question}
    got = asking.logprobs([pair.recipient.question], transplant(partners, part), live=K - 2)[0]
    opening = encoder.text_ids(encoder.answer_marker) if encoder.num_marker_tokens else []
    embed = model.get_input_embeddings()
    ids = [
        torch.tensor(encoder.prompt_ids(k.question, K) + opening)
        for k in (pair.recipient, pair.source)
    ]
    patched = part.columns(encoder.prompt(pair.recipient.question, K))
    states = [state[patched] for state in layer_inputs(model, embed(ids[1]))]
    with altered(model, "swap", patched, states):
        logits = model(inputs_embeds=embed(ids[0])[None], use_cache=False).logits[0, -1]
    tokens = [encoder.answer_ids(answer)[len(opening)] for answer in asking.answers]
    torch.testing.assert_close(got, logits.log_softmax(-1)[tokens], atol=2e-3, rtol=2e-3)


def test_a_transplant_of_everything_gives_what_the_source_gives(asking, pairs):
    recipients = [pair.recipient.question for pair in pairs]
    sources = [pair.source.question for pair in pairs]
    between = transplant(dict(zip(recipients, sources, strict=True)), EVERYWHERE)
    torch.testing.assert_close(
        asking.logprobs(recipients, between), asking.logprobs(sources), atol=2e-3, rtol=2e-3
    )


def test_models_whose_blocks_are_fed_back_keep_their_later_blocks(tokenizer):
    encoder = encoder_for(tokenizer, passes=2)
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    asking = Asking(reasoner, K, closed_set(KNOWN))
    assert not asking.can_run_live and not any(c.live for c in carriers(asking))
    with pytest.raises(ConfigError, match="cannot run after"):
        asking.logprobs([KNOWN[0].question], live=1)


def test_answers_that_begin_alike_are_refused(tokenizer):
    encoder = encoder_for(tokenizer)
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    with pytest.raises(ConfigError, match="do not differ in their first token"):
        Asking(reasoner, K, ("21", "12", "11"))


def test_parts_are_columns_of_the_trunk():
    prompt = SimpleNamespace(trunk=Trunk.build((1, 2, 3), (7, 8), 3))
    assert Part("up_to", 2).columns(prompt) == [3, 4, 5, 6]
    assert Part("last", 3).columns(prompt) == [6, 7, 8]
    assert EVERYWHERE.columns(prompt) == list(range(9))
    assert [list(b) for b in bands(8)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [len(b) for b in bands(2)] == [1, 1]


# --- machines whose truth is known ---------------------------------------------------------------


class Machine(Asking):
    """Answers by a rule instead of a model: the parts that it is asked with say what happens."""

    rule: Any
    steps: Any

    def logprobs(self, questions, between=None, *, live=0, blocks=None):
        return torch.log_softmax(
            torch.stack([8.0 * self._one_hot(q, between) for q in questions]), -1
        )

    def _one_hot(self, question, between):
        answer = self._answer(question, between)
        return torch.tensor([float(answer == known) for known in self.answers])

    def _answer(self, question, between):
        known = {k.question: k for k in KNOWN}
        recipient = known[question]
        if between is None:
            return recipient.worked.answer
        partners, part, what = between
        return self.rule(recipient, known[partners[question]], part, what, self.steps[question])

    def decode(self, questions, between=None, *, live=0, max_new_tokens=16):
        return [self._answer(question, between) for question in questions]


def holds_values(recipient, source, part, what, step):
    """Block t holds the value after step t, and what follows is computed from the question."""
    if (part.kind == "block" and part.number == step) or part.kind == "up_to":
        t = step if part.kind == "block" else part.number
        return recipient.worked.continue_from(min(t, step), source.value(min(t, step)))
    return recipient.worked.answer


def holds_answers(recipient, source, part, what, step):
    return (source if part.kind in ("blocks", "everything") else recipient).worked.answer


def ignores_blocks(recipient, source, part, what, step):
    return (source if part.kind in ("question", "everything") else recipient).worked.answer


def run_machine(rule, tokenizer, monkeypatch, run=run_transplant, only_step=None):
    for module in (transplant_module, interchange_module):
        monkeypatch.setattr(
            module, "transplant", lambda partners, part, what: (partners, part, what)
        )
    encoder = encoder_for(tokenizer)
    pairs = choose_pairs(KNOWN, encoder, 120, 0)
    pairs = [p for p in pairs if only_step in (None, p.step)]
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    machine = Machine(reasoner, K, closed_set(KNOWN))
    object.__setattr__(machine, "steps", {p.recipient.question: p.step for p in pairs})
    object.__setattr__(machine, "rule", rule)
    return run(machine, pairs)


def verdicts_of(result):
    return {verdict["aim"]: verdict for verdict in result["verdicts"]}


def test_blocks_that_hold_values_are_called_so(tokenizer, monkeypatch):
    result = run_machine(holds_values, tokenizer, monkeypatch, only_step=2)
    verdict = verdicts_of(result)["intermediate"]
    assert verdict["holds"] and verdict["sufficiency"]["accuracy"] == 1.0
    assert verdict["controls"]["same_value"]["accuracy"] == 1.0
    assert verdict["controls"]["same_answer"]["accuracy"] == 0.0
    assert verdict["line"].endswith("the blocks carry the intermediate value")
    assert not verdicts_of(result)["answer"]["holds"]


def test_blocks_that_hold_the_answer_are_called_so_and_nothing_more(tokenizer, monkeypatch):
    result = run_machine(holds_answers, tokenizer, monkeypatch)
    verdicts = verdicts_of(result)
    assert verdicts["answer"]["holds"] and verdicts["answer"]["carrier"] == "all blocks"
    assert verdicts["answer"]["controls"]["necessity"] == 1.0
    assert not verdicts["intermediate"]["holds"]
    assert [result["decides"][k]["accuracy"] for k in ("blocks", "question")] == [1.0, 1.0]
    by_step = verdicts["intermediate"]["by_step"].values()
    assert all((row["accuracy"], row["carrier"]) == (0.0, "all blocks") for row in by_step)
    said = "; ".join(f"step {step}: no part gives it" for step in (1, 2, 3))
    assert verdicts["intermediate"]["step_line"].endswith(f"its own part: {said}")
    assert verdicts["intermediate"]["carrier"] == "all blocks"
    assert verdicts["intermediate"]["line"].startswith(
        "no part of the blocks, transplanted, gives the answer that follows from the source's "
    )
    assert verdicts["answer"]["line"].startswith("all blocks, transplanted: 100.0 %")


def test_blocks_that_hold_an_answer_beside_the_question_are_called_so(tokenizer, monkeypatch):
    def either(recipient, source, part, what, step):
        handed = part.kind in ("blocks", "question", "everything")
        return (source if handed else recipient).worked.answer

    result = run_machine(either, tokenizer, monkeypatch)
    verdict = verdicts_of(result)["answer"]
    assert verdict["failing"] == ["competitor"] and not verdict["holds"]
    assert verdict["line"].endswith(
        "no call (competitor); the blocks hold an answer but are not its only source"
    )
    said = verdict_lines(result)
    assert any(
        line.startswith(
            "The blocks hold an answer but are not its only source (the question alone gives it in "
            "100.0 %; thresholds not met: competitor). all blocks, transplanted: 100.0 %"
        )
        for line in said
    )
    assert not any("only source" in line for line in said[1:-1] if "intermediate" in line)


def test_a_value_that_one_block_holds_is_found_though_others_are_not_there(tokenizer, monkeypatch):
    """All steps together would say 40 %: most pairs are of other steps."""

    def holds_the_first(recipient, source, part, what, step):
        return holds_values(recipient, source, part, what, step if step == 1 else 0)

    result = run_machine(holds_the_first, tokenizer, monkeypatch)
    verdict = verdicts_of(result)["intermediate"]
    assert not verdict["holds"] and verdict["sufficiency"]["accuracy"] < 0.8
    shares = {step: row["accuracy"] for step, row in verdict["by_step"].items()}
    assert shares["1"] == 1.0 and max(shares["2"], shares["3"]) < 0.5
    assert "block 1" in verdict["by_step"]["1"]["carrier"]
    assert any("step 1: 100 %" in line for line in lines_of(result))


def test_a_part_of_the_blocks_may_be_chosen_and_the_other_half_scores_it(tokenizer, monkeypatch):
    """Values alone hand over the answer, which whole blocks, with their keys, do not."""

    def only_values(recipient, source, part, what, step):
        handed = part.kind == "blocks" and what.values and not what.keys
        return (source if handed else recipient).worked.answer

    result = run_machine(only_values, tokenizer, monkeypatch)
    verdict = verdicts_of(result)["answer"]
    assert verdict["carrier"] == "all blocks, values"
    assert verdict["sufficiency"] == {**verdict["sufficiency"], "accuracy": 1.0, "total": 60}
    totals = [row["total"] for row in verdicts_of(result)["intermediate"]["by_step"].values()]
    assert sum(totals) == 60  # of 120 pairs
    said = verdict_lines(result)
    assert said[0].startswith("Blocks of one question behind the text of another: the answer is")
    assert said[0].endswith(".")
    assert any(line.startswith("Step by step") for line in said)


def test_answers_that_are_likeliest_but_not_written_are_no_call(tokenizer, monkeypatch):
    decode = Machine.decode

    def other(self, *args, **kwargs):
        return ["something else" for _ in decode(self, *args, **kwargs)]

    monkeypatch.setattr(Machine, "decode", other)
    verdict = verdicts_of(run_machine(holds_answers, tokenizer, monkeypatch))["answer"]
    assert verdict["sufficiency"]["accuracy"] == 1.0
    assert verdict["failing"] == ["decoding"] and not verdict["holds"]


def test_a_model_that_ignores_its_blocks_gets_no_call(tokenizer, monkeypatch):
    result = run_machine(ignores_blocks, tokenizer, monkeypatch)
    verdicts = verdicts_of(result)
    assert [result["decides"][k]["accuracy"] for k in ("blocks", "question")] == [0.0, 0.0]
    assert verdicts["answer"]["competitor"] == {
        "name": "the question alone",
        "share": 1.0,
        "all": {"the question alone": 1.0, "an unrelated source": 0.0},
    }
    for verdict in verdicts.values():
        assert not verdict["holds"]
        assert {"sufficiency", "necessity"} <= set(verdict["failing"])
        assert "no call (" in verdict["line"]


def test_interchange_finds_the_block_of_each_value(tokenizer, monkeypatch):
    monkeypatch.setattr(interchange_module, "_random_half", lambda seed: lambda between: between)
    result = run_machine(holds_values, tokenizer, monkeypatch, run_interchange)
    assert [step["step"] for step in result["steps"]] == [1, 2, 3]
    for step in result["steps"]:
        assert step["best"]["block"] == step["step"] and step["best"]["accuracy"] == 1.0
        assert step["unrelated"]["accuracy"] == 0.0
        at = {(cell["block"], tuple(cell["layers"])): cell["accuracy"] for cell in step["map"]}
        assert all(share == (block == step["step"]) for (block, _), share in at.items())


def test_no_place_is_named_where_none_holds_the_value(tokenizer, monkeypatch):
    monkeypatch.setattr(interchange_module, "_random_half", lambda seed: lambda between: between)
    result = run_machine(ignores_blocks, tokenizer, monkeypatch, run_interchange)
    for step in result["steps"]:
        assert step["best"]["accuracy"] == 0.0
        assert "in no block and no pair of" in step["line"] and "best in" not in step["line"]


# --- what is written into the cache --------------------------------------------------------------


def cache_under(asking, between, questions):
    encoder, model = asking.reasoner.encoder, asking.reasoner.model
    prompts = [encoder.prompt(question, K) for question in questions]
    slots = [Slot(b, K, 0, 1) for b in range(len(prompts))]
    caught = {}

    def noting(filled):
        between(filled)
        caught["layers"] = [(layer.keys, layer.values) for layer in filled.cache.layers]

    with torch.no_grad():
        prefill(model, encoder, prompts, slots, noting)
    return caught["layers"]


def test_mean_and_noise_alter_the_blocks_alone_and_keep_their_size(asking, pairs):
    length = len(pairs[0].recipient.question)
    questions = [k.question for k in KNOWN if len(k.question) == length][:6]
    clean = cache_under(asking, lambda filled: None, questions)
    columns = BLOCKS.columns(asking.reasoner.encoder.prompt(questions[0], K))
    rest = [i for i in range(clean[0][0].shape[2]) if i not in columns]
    kinds = conditions({}, seed=0)
    for name in ("mean of other questions' blocks", "noise of the same size"):
        for old, new in zip(clean, cache_under(asking, kinds[name], questions), strict=True):
            for before, after in zip(old, new, strict=True):
                assert torch.equal(before[:, :, rest], after[:, :, rest])
                inside = before[:, :, columns]
                others = [[j for j in range(6) if j != i] for i in range(6)]
                expected = torch.stack([inside[own].mean(0) for own in others])
                if name.startswith("mean"):
                    torch.testing.assert_close(after[:, :, columns], expected)
                else:
                    norms = after[:, :, columns].norm(dim=-1), inside.norm(dim=-1)
                    torch.testing.assert_close(*norms, atol=1e-4, rtol=1e-4)


def test_half_of_the_directions_is_a_projection_of_the_change(asking, pairs):
    partners = {pair.recipient.question: pair.source.question for pair in pairs}
    questions = [p.recipient.question for p in pairs[:1]]
    whole, half = transplant(partners, BLOCKS), interchange_module._random_half(0)
    clean = cache_under(asking, lambda filled: None, questions)
    full = cache_under(asking, whole, questions)
    once = cache_under(asking, half(whole), questions)
    twice = cache_under(asking, half(half(whole)), questions)
    same = cache_under(asking, changed_by(whole, lambda old, new, name, i: new), questions)
    for i, states in enumerate(zip(clean, full, once, twice, same, strict=True)):
        for own, other, part, again, all_ in zip(*states, strict=True):
            assert torch.equal(other, all_)
            torch.testing.assert_close(part, again, atol=1e-3, rtol=1e-3)
            if i:  # keys and values of the first layer do not know the question
                assert 0 < (part - own).norm() < (other - own).norm()


# --- whole protocols -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["transplant", "interchange", "content"])
def test_a_random_model_gets_no_call(protocol, tokenizer):
    encoder = encoder_for(tokenizer)
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    result = run_protocol(protocol, reasoner, EXAMPLES, SOURCE, pairs=120)
    assert result["protocol"] == protocol and result["task"]["modulus"] == 7
    assert result["environment"]["packages"]["torch"] and result["settings"]["seed"] == 0
    assert not any(verdict.get("holds") for verdict in result.get("verdicts", ()))
    assert all(isinstance(line, str) for line in lines_of(result)) and lines_of(result)
    json.dumps(result)
    picture = protocol_svg(result, "title")
    assert (picture is None) == (protocol == "content")
    assert picture is None or ("block 3" in picture and "<svg" in picture)
    if protocol == "transplant":
        everything = next(c for c in result["carriers"] if c["name"] == "question and all blocks")
        assert everything["counterfactual"]["total"] == 120
        assert sum(shares["total"] for shares in everything["by_step"].values()) == 120


def test_content_without_blocks_is_asked_without_blocks(tokenizer):
    encoder = encoder_for(tokenizer)
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    asking = Asking(reasoner, K, closed_set(KNOWN))
    counted = []
    result = run_content(asking, KNOWN[:30], "arithmetic", SOURCE.task, progress=counted.append)
    given = asking.chosen(asking.logprobs([k.question for k in KNOWN[:30]], blocks=0))
    expected = "".join(
        "01"[one == k.worked.answer] for one, k in zip(given, KNOWN[:30], strict=True)
    )
    assert result["right"]["removed"] == expected
    assert result["rewritten"]["questions"] == 30 and sum(counted) == 9


@pytest.mark.slow
def test_the_command_asks_the_task_that_the_run_was_trained_on(tmp_path, monkeypatch):
    from rich.console import Console
    from typer.testing import CliRunner

    import rim.cli.common
    from rim.cli import app
    from rim.config.recipe_yaml import recipe_from_dict
    from rim.data.sources import write_file
    from rim.train.curriculum import train

    monkeypatch.setattr(rim.cli.common, "console", Console(width=400))
    monkeypatch.setattr(rim.cli.common, "quiet_libraries", lambda: None)
    knobs = {"num_examples": 64, "modulus": 7, "min_operations": 3}
    recipe = {
        "name": "tiny",
        "runs_dir": str(tmp_path),
        "method": "rim",
        "data": {"train": {"format": "arithmetic", "arithmetic": knobs}, "holdout": 8},
        "model": {
            "tuning": "full",
            "scratch": {"layers": 2, "width": 16, "heads": 2, "vocab_size": 4, "alphabet": "data"},
        },
        "memory": {"blocks": 2, "tokens": 1},
        "templates": {"question": "{question}", "answer": "#{answer}"},
        "stages": [{"name": "s", "objective": "answer", "max_steps": 1, "batch_size": 8}],
    }
    run = train(recipe_from_dict(recipe), console=Console(quiet=True))
    assert task_of(run.path).arithmetic.modulus == 7
    data, out = tmp_path / "d.jsonl", tmp_path / "out.json"
    write_file(data, EXAMPLES)
    command = ["controls", str(run.path), str(data), "--protocol", "interchange", "--pairs", "60"]
    result = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert written["run"] == "tiny" and out.with_suffix(".svg").exists()
    for line in lines_of(written):
        assert line in result.output
    wrong = CliRunner().invoke(app, [*command, "--task", "arithmetic", "--set", "modulus=5"])
    assert wrong.exit_code == 2 and "with these knobs" in wrong.output
    unnamed = CliRunner().invoke(app, ["controls", str(run.model_dir), *command[2:]])
    assert unnamed.exit_code == 2 and "name it (--task)" in unnamed.output
