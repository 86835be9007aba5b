"""Interventions on block states, against hand-made passes; and the controls built on them."""

from __future__ import annotations

import pytest
import torch
from conftest import EXAMPLES, tiny_model

from rim.config import ConfigError, MemoryConfig, PromptFormat
from rim.core.prompt import PromptEncoder, add_memory_tokens
from rim.data.examples import DataError, Example
from rim.evaluate.controls import choose_partners, num_answers, run_controls
from rim.evaluate.interventions import Intervention, decoder_layers
from rim.infer.answers import grade
from rim.infer.decode import generate
from rim.infer.reasoner import Reasoner

K = 3
QUESTIONS = [example.question for example in EXAMPLES]
PARTNERS = dict(zip(QUESTIONS, QUESTIONS[1:] + QUESTIONS[:1], strict=True))


@pytest.fixture(params=["rim", "coconut", "rim-looped"])
def blocks(request):
    return {
        "rim": ("rim", MemoryConfig(blocks=K)),
        "coconut": ("coconut", MemoryConfig(blocks=K, tokens=2, framing="once")),
        "rim-looped": ("rim", MemoryConfig(blocks=K, passes=2)),
    }[request.param]


@pytest.fixture
def encoder(blocks, tokenizer):
    prompt_format = PromptFormat(method=blocks[0], memory=blocks[1])
    add_memory_tokens(tokenizer, prompt_format.memory)
    return PromptEncoder(tokenizer, prompt_format)


def trunk_inputs(model, encoder, question, count=K):
    from test_latents import naive_embeddings

    return naive_embeddings(model, encoder, question, count)


def layer_inputs(model, sequence):
    output = model(inputs_embeds=sequence[None], use_cache=False, output_hidden_states=True)
    return [state[0] for state in output.hidden_states[:-1]]


def naive_first_token(model, encoder, question, intervention):
    """One sequence, one pass without cache: block tokens overwritten before every layer."""
    trunk = trunk_inputs(model, encoder, question)
    prompt = encoder.prompt(question)
    suffix = torch.tensor(encoder.readout_prefix_ids(prompt, K), dtype=torch.long)
    sequence = torch.cat([trunk, model.get_input_embeddings()(suffix)])
    num_block_tokens = K * len(encoder.block_ids)
    # Live: the last token of the last block, or the one that closes all blocks, in the suffix.
    start, live = len(trunk) - num_block_tokens, len(trunk) - (not encoder.closing_ids)
    patched = slice(start - len(encoder.opening_ids), live)
    clean = layer_inputs(model, trunk)
    other = layer_inputs(model, trunk_inputs(model, encoder, PARTNERS[question]))
    handles = []
    for index, layer in enumerate(decoder_layers(model)):

        def hook(module, args, kwargs, index=index):
            hidden = args[0] if args else kwargs["hidden_states"]
            hidden = hidden.clone()
            if intervention.kind == "zero":
                hidden[0, patched] = 0
            elif intervention.kind == "swap":
                hidden[0, patched] = other[index][patched.start - len(trunk) :][
                    : live - patched.start
                ]
            elif intervention.kind == "shuffle":
                length = len(encoder.block_ids)
                for column in range(start, live):
                    k, i = divmod(column - start, length)
                    turned = start + (k + turn) % K * length + i
                    hidden[0, column] = clean[index][turned]
            return (
                ((hidden, *args[1:]), kwargs)
                if args
                else (args, kwargs | {"hidden_states": hidden})
            )

        handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
    turn = 0
    if intervention.kind == "shuffle":
        import random

        turn = random.Random(f"{intervention.seed}/{question}").randrange(1, K)
    try:
        logits = model(inputs_embeds=sequence[None], use_cache=False).logits[0, -1].clone()
    finally:
        for handle in handles:
            handle.remove()
    logits[list(encoder.memory_ids)] = -torch.inf
    return int(logits.argmax()), torch.log_softmax(logits, 0)


@pytest.mark.parametrize("kind", ["zero", "shuffle", "swap"])
@torch.no_grad()
def test_interventions_equal_overwriting_the_layers_inputs_by_hand(family, kind, encoder):
    model = tiny_model(family, encoder.tokenizer)
    intervention = Intervention(kind, partners=PARTNERS)
    answers = generate(
        model, encoder, QUESTIONS, blocks=K, max_new_tokens=1, intervention=intervention
    )
    plain = generate(model, encoder, QUESTIONS, blocks=K, max_new_tokens=1)
    for question, (answer,) in zip(QUESTIONS, answers, strict=True):
        token, logprobs = naive_first_token(model, encoder, question, intervention)
        assert (*answer.token_ids, encoder.stop_id)[0] == token
        assert answer.logprob == pytest.approx(float(logprobs[token]), abs=1e-3)
    assert any(a.logprob != p.logprob for (a,), (p,) in zip(answers, plain, strict=True))


@torch.no_grad()
def test_swapping_in_its_own_blocks_changes_nothing(family, encoder):
    """The whole machinery (two passes, hooks, the live last token) is exact where it should be."""
    model = tiny_model(family, encoder.tokenizer)
    own = Intervention("swap", partners={question: question for question in QUESTIONS})
    answers = generate(model, encoder, QUESTIONS, blocks=K, max_new_tokens=5, intervention=own)
    plain = generate(model, encoder, QUESTIONS, blocks=K, max_new_tokens=5)
    for (answer,), (expected,) in zip(answers, plain, strict=True):
        assert answer.token_ids == expected.token_ids
        assert answer.logprob == pytest.approx(expected.logprob, abs=1e-3)


@torch.no_grad()
def test_a_hidden_question_equals_a_mask_over_the_readouts_rows(family, encoder):
    model = tiny_model(family, encoder.tokenizer)
    hidden = Intervention("hide_question")
    answers = generate(model, encoder, QUESTIONS, blocks=K, max_new_tokens=1, intervention=hidden)
    for question, (answer,) in zip(QUESTIONS, answers, strict=True):
        prompt, trunk = encoder.prompt(question), trunk_inputs(model, encoder, question)
        suffix = torch.tensor(encoder.readout_prefix_ids(prompt, K), dtype=torch.long)
        sequence = torch.cat([trunk, model.get_input_embeddings()(suffix)])
        mask = torch.ones(len(sequence), len(sequence), dtype=torch.bool).tril()
        live = len(trunk) - (not encoder.closing_ids)
        mask[live:, : len(prompt.question_ids)] = False
        logits = model(
            inputs_embeds=sequence[None],
            attention_mask=mask[None, None],
            position_ids=torch.arange(len(sequence))[None],
            use_cache=False,
        ).logits[0, -1]
        logits[list(encoder.memory_ids)] = -torch.inf
        assert answer.logprob == pytest.approx(float(logits.log_softmax(0).max()), abs=1e-3)


def test_an_answer_under_intervention_does_not_depend_on_its_batch_mates(family, encoder):
    model = tiny_model(family, encoder.tokenizer)
    for kind in ("zero", "shuffle", "swap", "hide_question"):
        intervention = Intervention(kind, partners=PARTNERS)
        options = {"blocks": K, "max_new_tokens": 3, "intervention": intervention}
        together = generate(model, encoder, QUESTIONS, **options)
        for question, (answer,) in zip(QUESTIONS, together, strict=True):
            ((alone,),) = generate(model, encoder, [question], **options)
            assert alone.token_ids == answer.token_ids
            assert alone.logprob == pytest.approx(answer.logprob, abs=1e-3)


def test_interventions_need_one_number_of_blocks_and_the_final_answer(encoder):
    model = tiny_model("llama", encoder.tokenizer)
    for options in ({"blocks": K, "after": "all"}, {"blocks": [1, 2, 3]}):
        with pytest.raises(ConfigError, match="an intervention needs"):
            generate(model, encoder, QUESTIONS, intervention=Intervention("zero"), **options)


def test_run_controls_reports_each_control_with_one_mark_a_question(encoder):
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    counted = []
    outcomes = run_controls(reasoner, EXAMPLES, max_new_tokens=2, progress=counted.append)
    assert [o.name for o in outcomes[:5]] == [
        "no blocks",
        "block states zeroed",
        "blocks shuffled",
        "blocks of another question",
        "question hidden from the read-out",
    ]
    assert [o.name for o in outcomes[5:]] == [f"K = {k}" for k in range(1, 2 * K + 1)]
    assert all(len(o.right) == len(EXAMPLES) for o in outcomes)
    assert sum(counted) == num_answers(K, len(EXAMPLES))
    swap = outcomes[3].as_record()
    assert set(swap) == {"name", "group", "right", "follows", "follows_unaltered"}
    assert set(swap["right"]) <= {"0", "1"}


def test_the_sweep_is_what_each_number_of_blocks_would_answer(encoder):
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    answers = [reasoner.ask(q, blocks=5, max_new_tokens=2).answer or "-" for q in QUESTIONS]
    examples = [
        Example(q, (), a if i else "something else")
        for i, (q, a) in enumerate(zip(QUESTIONS, answers, strict=True))
    ]
    outcomes = {o.name: o.right for o in run_controls(reasoner, examples, max_new_tokens=2)}
    expected = tuple(
        grade(reasoner.ask(e.question, blocks=5, max_new_tokens=2).text, e, encoder)
        for e in examples
    )
    assert outcomes["K = 5"] == expected and any(expected)
    assert any(outcomes[f"K = {k}"] != expected for k in range(1, 2 * K + 1)), "K matters"


def test_the_share_that_follows_the_other_question_stands_beside_that_of_unaltered_blocks(encoder):
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    own = {q: reasoner.ask(q, max_new_tokens=8).answer for q in QUESTIONS}
    # A partner is the next question: that of the first answered one has just this answer as gold.
    answered = next(i for i, q in enumerate(QUESTIONS) if own[q])
    questions = QUESTIONS[answered:] + QUESTIONS[:answered]
    golds = ["none", own[questions[0]], "neither"]
    examples = [Example(q, (), gold) for q, gold in zip(questions, golds, strict=True)]
    swap = run_controls(reasoner, examples, max_new_tokens=8)[3]
    partners = choose_partners(examples)
    same = [own[q] == partners[q].answer for q in questions]
    assert swap.follows_unaltered == sum(same) / 3 > 0


def test_the_sweep_ends_where_the_models_positions_end(encoder):
    longest = max(len(encoder.prompt_ids(question, 4)) for question in QUESTIONS)
    model = tiny_model("llama", encoder.tokenizer, max_positions=longest)
    outcomes = run_controls(Reasoner(model, encoder), EXAMPLES, max_new_tokens=2)
    swept = [o.name for o in outcomes if o.group == "number of blocks"]
    assert swept == ["K = 1", "K = 2", "K = 3", "K = 4"]


def test_without_blocks_there_is_no_room_to_write_steps(encoder, monkeypatch):
    import rim.evaluate.controls

    limits = {}
    original = rim.evaluate.controls.generate

    def noting(*args, blocks, max_new_tokens, **options):
        limits.setdefault(blocks, set()).add(max_new_tokens)
        return original(*args, blocks=blocks, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr(rim.evaluate.controls, "generate", noting)
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    run_controls(reasoner, EXAMPLES, max_new_tokens=20)
    answer = max(len(encoder.answer_ids(e.answer)) for e in EXAMPLES)
    assert limits == {0: {answer}, K: {20}, 2 * K: {20}} and answer < 20


@pytest.mark.parametrize("passes", [1, 2])
def test_a_latent_that_the_readout_begins_at_is_out_of_reach(passes, tokenizer):
    memory = MemoryConfig(blocks=K, framing="none", passes=passes)
    add_memory_tokens(tokenizer, memory)
    encoder = PromptEncoder(tokenizer, PromptFormat(method="rim", memory=memory))
    model = tiny_model("llama", tokenizer)
    options = {"blocks": K, "max_new_tokens": 1, "intervention": Intervention("zero")}
    if passes == 1:
        assert len(generate(model, encoder, QUESTIONS, **options)) == len(QUESTIONS)
    else:
        with pytest.raises(ConfigError, match="no intervention reaches"):
            generate(model, encoder, QUESTIONS, **options)


def test_partners_have_another_answer():
    examples = [Example(str(i), (), a) for i, a in enumerate(["1", "1", "2"])]
    partners = choose_partners(examples)
    assert {q: e.question for q, e in partners.items()} == {"0": "2", "1": "2", "2": "0"}
    with pytest.raises(DataError, match="all answers are the same"):
        choose_partners(examples[:2])


def test_methods_without_blocks_have_nothing_to_control(tokenizer):
    prompt_format = PromptFormat(method="direct")
    add_memory_tokens(tokenizer, prompt_format.memory)
    encoder = PromptEncoder(tokenizer, prompt_format)
    with pytest.raises(ConfigError, match="no memory blocks to control"):
        run_controls(Reasoner(tiny_model("llama", tokenizer), encoder), EXAMPLES)


def test_the_command_prints_a_verdict_for_each_control_and_writes_them(tmp_path, monkeypatch):
    import json

    from rich.console import Console
    from test_learning import recipe_for, write_data
    from typer.testing import CliRunner

    import rim.cli.common
    from rim.cli import app
    from rim.train.curriculum import train

    monkeypatch.setattr(rim.cli.common, "console", Console(width=80))
    monkeypatch.setattr(rim.cli.common, "quiet_libraries", lambda: None)
    write_data(tmp_path)
    run = train(recipe_for("rim", tmp_path), console=Console(quiet=True))
    out = tmp_path / "controls.json"
    arguments = ["controls", str(run.path), str(tmp_path / "test.jsonl"), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("rim, ")]
    written = json.loads(out.read_text())
    assert lines == [verdict["line"] for verdict in written["verdicts"]]
    assert len(lines) == 6 and "K = 1 to K = 4" in lines[-1]
    accuracy = written["right"].count("1") / len(written["right"])
    assert accuracy >= 0.9
    assert all(verdict["from"] == accuracy for verdict in written["verdicts"][:-1])
    refused = CliRunner().invoke(app, ["controls", str(tmp_path), str(tmp_path / "test.jsonl")])
    assert refused.exit_code == 2
