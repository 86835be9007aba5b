"""Interventions on block states, against hand-made passes; and the controls built on them."""

from __future__ import annotations

import contextlib
import dataclasses
import random

import pytest
import torch
from conftest import EXAMPLES, decoder_layers, tiny_model
from test_latents import naive_embeddings
from transformers import DynamicCache

from rim.config import ConfigError, MemoryConfig, PromptFormat, TemplatesConfig
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.data.examples import DataError, Example
from rim.evaluate.cache_interventions import (
    BLOCKS,
    QUESTION,
    Part,
    Slice,
    hide,
    shuffle,
    transplant,
    turn_keys,
    zero,
)
from rim.evaluate.controls import choose_partners, choose_thirds, num_answers, run_controls
from rim.evaluate.verdicts import control_verdicts
from rim.infer.answers import grade
from rim.infer.decode import generate
from rim.infer.prefill import Slot, prefill
from rim.infer.reasoner import Reasoner

K = 3
QUESTIONS = [example.question for example in EXAMPLES]
PARTNERS = dict(zip(QUESTIONS, QUESTIONS[1:] + QUESTIONS[:1], strict=True))


@pytest.fixture(params=["rim", "rim-opening", "coconut", "rim-looped"])
def memory(request):
    return {
        "rim": ("rim", MemoryConfig(blocks=K)),
        "rim-opening": ("rim", MemoryConfig(blocks=K)),
        "coconut": ("coconut", MemoryConfig(blocks=K, tokens=2, framing="once")),
        "rim-looped": ("rim", MemoryConfig(blocks=K, passes=2)),
    }[request.param] + ("#### {answer}" if request.param == "rim-opening" else "{answer}",)


@pytest.fixture
def encoder(memory, tokenizer):
    method, settings, answer = memory
    templates = TemplatesConfig(answer=answer)
    prompt_format = PromptFormat(method=method, memory=settings, templates=templates)
    add_memory_tokens(tokenizer, prompt_format.memory)
    return PromptEncoder(tokenizer, prompt_format)


def layer_inputs(model, sequence):
    output = model(inputs_embeds=sequence[None], use_cache=False, output_hidden_states=True)
    return [state[0] for state in output.hidden_states[:-1]]


@contextlib.contextmanager
def altered(model, kind, patched, states):
    """Within the context the tokens `patched` have other layer inputs (swap, shuffle), or keys and
    values of zero.
    """
    handles = []
    for index, layer in enumerate(decoder_layers(model)):

        def replace_input(module, args, kwargs, index=index):
            hidden = (args[0] if args else kwargs["hidden_states"]).clone()
            hidden[0, patched] = states[index]
            return (
                ((hidden, *args[1:]), kwargs)
                if args
                else (
                    args,
                    kwargs | {"hidden_states": hidden},
                )
            )

        def zero_output(module, args, output, layer=layer):
            output = output.clone()
            width = output.shape[-1] // 3  # GPT-2 has queries, keys and values in one matrix
            output[0, patched, width if hasattr(layer, "attn") else 0 :] = 0
            return output

        if kind == "zero":
            attention = layer.attn if hasattr(layer, "attn") else layer.self_attn
            names = ["c_attn"] if hasattr(layer, "attn") else ["k_proj", "v_proj"]
            handles += [getattr(attention, n).register_forward_hook(zero_output) for n in names]
        else:
            handles.append(layer.register_forward_pre_hook(replace_input, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def shuffled(question):
    turn = random.Random(f"0/{question}").randrange(1, K)
    return [(k + turn) % K for k in range(K)]


def naive_logprob(model, encoder, question, kind, answer):
    """Log-probability of a decoded answer, one sequence, one pass a token, without a cache."""
    prompt = encoder.prompt(question, K)
    embed = model.get_input_embeddings()
    trunk = naive_embeddings(model, encoder, question, K)
    other = naive_embeddings(model, encoder, PARTNERS[question], K)
    opened = encoder.answer_has_opening(prompt)
    length, num_blocks = len(encoder.block_ids), K * len(encoder.block_ids)
    start = len(trunk) - num_blocks
    if kind == "shuffle":
        clean = layer_inputs(model, trunk)
        source = [start + k * length + i for k in shuffled(question) for i in range(length)]
        states = [state[source] for state in clean]
    else:
        start -= len(encoder.opening_ids)
        states = [state[start - len(trunk) :] for state in layer_inputs(model, other)]
    # Alive is what opens the answer, or else the last token of the last block.
    live = len(trunk) - (not opened)
    patched, states = slice(start, live), [state[: live - start] for state in states]
    prefix = list(prompt.prefix_ids(K))
    tokens = (*answer.token_ids, *([encoder.stop_id] if answer.finished else []))
    total = 0.0
    for n, token in enumerate(tokens):
        fed = torch.tensor([*prefix, *tokens[:n]], dtype=torch.long)
        sequence = torch.cat([trunk, embed(fed)])[None]
        # A marker's first token is said by the last block as it was before.
        unaltered = n == 0 and opened and not prefix
        context = contextlib.nullcontext() if unaltered else altered(model, kind, patched, states)
        with context:
            logits = model(inputs_embeds=sequence, use_cache=False).logits[0, -1].clone()
        logits[list(encoder.memory_ids)] = -torch.inf
        assert int(logits.argmax()) == token
        total += float(torch.log_softmax(logits, 0)[token])
    return total


INTERVENTIONS = {
    "zero": zero(),
    "shuffle": shuffle(),
    "swap": transplant(PARTNERS),
    "hide": hide(),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zero", "shuffle", "swap"])
@torch.no_grad()
def test_interventions_equal_overwriting_by_hand(family, kind, encoder):
    """Slices of caches against layer inputs (or keys and values) overwritten in plain passes."""
    model = tiny_model(family, encoder.tokenizer)
    options = {"blocks": K, "max_new_tokens": 3}
    answers = generate(model, encoder, QUESTIONS, between=INTERVENTIONS[kind], **options)
    plain = generate(model, encoder, QUESTIONS, **options)
    for question, (answer,) in zip(QUESTIONS, answers, strict=True):
        expected = naive_logprob(model, encoder, question, kind, answer)
        assert answer.logprob == pytest.approx(expected, abs=2e-3)
    changed = any(a.logprob != p.logprob for (a,), (p,) in zip(answers, plain, strict=True))
    # Learned positions lie in the states, so an order of columns is seen by nobody.
    assert changed or (kind == "shuffle" and family == "gpt2")


@torch.no_grad()
def test_swapping_in_its_own_blocks_changes_nothing(family, encoder):
    """The whole machinery (two passes, slices, the live last token) is exact where it should be."""
    model = tiny_model(family, encoder.tokenizer)
    own = transplant({question: question for question in QUESTIONS})
    answers = generate(model, encoder, QUESTIONS, blocks=K, max_new_tokens=5, between=own)
    plain = generate(model, encoder, QUESTIONS, blocks=K, max_new_tokens=5)
    for (answer,), (expected,) in zip(answers, plain, strict=True):
        assert answer.token_ids == expected.token_ids
        assert answer.logprob == pytest.approx(expected.logprob, abs=1e-3)


@torch.no_grad()
def test_a_part_or_a_band_of_layers_is_written_and_nothing_else(family, encoder):
    """Question, block or blocks; keys or values; some layers: all columns but those stay."""
    model = tiny_model(family, encoder.tokenizer)
    prompts = [encoder.prompt(q, K) for q in QUESTIONS[:2]]
    like = fill_trunks_of(model, encoder, prompts)
    for part in (Part("block", 2), BLOCKS):
        filled = fill_trunks_of(model, encoder, prompts)
        zero(part, Slice(keys=False, layers=range(1, 2)))(filled)
        for layer, (old, new) in enumerate(
            zip(like.cache.layers, filled.cache.layers, strict=True)
        ):
            assert torch.equal(old.keys, new.keys)
            differs = (old.values != new.values).any(-1).any(1)  # [B, C]
            wanted = torch.zeros_like(differs)
            if layer == 1:
                for b, prompt in enumerate(prompts):
                    wanted[b, [filled.column(b, i) for i in part.columns(prompt)]] = True
            assert torch.equal(differs, wanted)


def fill_trunks_of(model, encoder, prompts):
    slots = [Slot(b, K, 0, 1) for b in range(len(prompts))]
    return prefill(model, encoder, prompts, slots, between=lambda filled: None)[0]


@torch.no_grad()
def test_turned_keys_are_those_of_another_position(family, encoder):
    """Turned by two, keys are the same tokens' two places on: states depend on distances alone."""
    model = tiny_model(family, encoder.tokenizer)
    if family == "gpt2":
        keys = torch.randn(1, 3, 2, 16)
        assert torch.equal(turn_keys(model, keys, torch.ones(1, 3, dtype=torch.long), 0), keys)
        return
    ids, cache = torch.tensor([[5, 6, 7]]), DynamicCache(config=model.config)
    moved = DynamicCache(config=model.config)
    model(input_ids=ids, past_key_values=cache)
    model(input_ids=ids, past_key_values=moved, position_ids=torch.tensor([[2, 3, 4]]))
    for n, layer in enumerate(cache.layers):
        turned = turn_keys(model, layer.keys.transpose(1, 2), torch.full((1, 3), 2), n)
        torch.testing.assert_close(
            turned.transpose(1, 2), moved.layers[n].keys, atol=1e-4, rtol=1e-4
        )


@torch.no_grad()
def test_a_hidden_question_equals_a_mask_over_the_readouts_rows(family, encoder):
    model = tiny_model(family, encoder.tokenizer)
    answers = generate(model, encoder, QUESTIONS, blocks=K, max_new_tokens=2, between=hide())
    for question, (answer,) in zip(QUESTIONS, answers, strict=True):
        prompt, trunk = encoder.prompt(question, K), naive_embeddings(model, encoder, question, K)
        tokens = (*answer.token_ids, *([encoder.stop_id] if answer.finished else []))
        live = len(trunk) - (not encoder.answer_has_opening(prompt))
        total = 0.0
        for n, token in enumerate(tokens):
            fed = torch.tensor([*prompt.prefix_ids(K), *tokens[:n]], dtype=torch.long)
            sequence = torch.cat([trunk, model.get_input_embeddings()(fed)])
            mask = torch.ones(len(sequence), len(sequence), dtype=torch.bool).tril()
            mask[live:, : len(prompt.trunk.question_ids)] = False
            logits = model(
                inputs_embeds=sequence[None],
                attention_mask=mask[None, None],
                position_ids=torch.arange(len(sequence))[None],
                use_cache=False,
            ).logits[0, -1]
            logits[list(encoder.memory_ids)] = -torch.inf
            total += float(logits.log_softmax(0)[token])
        assert answer.logprob == pytest.approx(total, abs=2e-3)


@pytest.mark.slow
def test_an_answer_under_intervention_does_not_depend_on_its_batch_mates(family, encoder):
    model = tiny_model(family, encoder.tokenizer)
    for between in INTERVENTIONS.values():
        options = {"blocks": K, "max_new_tokens": 3, "between": between}
        together = generate(model, encoder, QUESTIONS, **options)
        for question, (answer,) in zip(QUESTIONS, together, strict=True):
            ((alone,),) = generate(model, encoder, [question], **options)
            assert alone.token_ids == answer.token_ids
            assert alone.logprob == pytest.approx(answer.logprob, abs=1e-3)


def test_interventions_need_one_number_of_blocks_and_the_final_answer(encoder):
    model = tiny_model("llama", encoder.tokenizer)
    for options in ({"blocks": K, "after": "all"}, {"blocks": [1, 2, 3]}):
        with pytest.raises(ConfigError, match="an intervention needs"):
            generate(model, encoder, QUESTIONS, between=zero(), **options)
    with pytest.raises(ConfigError, match="no block 4"):
        generate(model, encoder, QUESTIONS, blocks=K, between=zero(Part("block", 4)))
    with pytest.raises(ConfigError, match="another length"):
        generate(model, encoder, QUESTIONS[:1], blocks=K, between=transplant(PARTNERS, QUESTION))


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
    follows = {"follows", "follows_unaltered", "follows_by_chance"}
    assert set(swap) == {"name", "group", "right"} | follows
    assert set(swap["right"]) <= {"0", "1"}


@pytest.fixture
def finished(monkeypatch):
    """Answers of a random model, which never stops, count as whole."""
    import rim.evaluate.controls

    def whole(*args, **options):
        rows = generate(*args, **options)
        return [[dataclasses.replace(g, finished=True) for g in row] for row in rows]

    monkeypatch.setattr(rim.evaluate.controls, "generate", whole)


def test_an_answer_that_was_cut_off_is_wrong(encoder):
    reasoner = Reasoner(tiny_model("llama", encoder.tokenizer), encoder)
    cut_off = [reasoner.ask(q, max_new_tokens=2) for q in QUESTIONS]
    assert any(a.answer and not a.finished for a in cut_off)
    golds = [*(a.answer or "-" for a in cut_off[:-1]), "another"]
    examples = [Example(q, (), gold) for q, gold in zip(QUESTIONS, golds, strict=True)]
    outcomes = {o.name: o.right for o in run_controls(reasoner, examples, max_new_tokens=2)}
    assert not any(outcomes[f"K = {K}"])


def test_the_sweep_is_what_each_number_of_blocks_would_answer(encoder, finished):
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


def test_the_share_that_follows_the_other_question_stands_beside_that_of_unaltered_blocks(
    encoder, finished
):
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
    thirds = choose_thirds(examples, partners)
    assert all(
        len({golds.answer for golds in (e, partners[e.question], thirds[e.question])}) == 3
        for e in examples
    )
    two = [Example(q, (), gold) for q, gold in zip(questions, ("1", "2", "1"), strict=True)]
    assert choose_thirds(two, choose_partners(two)) is None
    assert run_controls(reasoner, two, max_new_tokens=8)[3].follows_by_chance is None


def test_what_chance_gives_is_told_where_it_is_known():
    swap = {"name": "swap", "group": "block states", "right": "0101", "follows": 0.5}
    for by_chance, end in (
        (0.25, "answer (25.0 % a third one's, as chance would)"),
        (None, "answer"),
    ):
        record = swap | {"follows_by_chance": by_chance}
        (said,) = control_verdicts("rim", ["1111"], [[record]])
        assert said["line"].endswith(end) and said["follows_by_chance"] == by_chance
        assert said["per_seed"][0]["follows"] == 0.5
    record = {"name": "K = 1", "group": "number of blocks", "right": "01"}
    (said,) = control_verdicts("rim", ["11"], [[record]])
    assert said["line"] == "rim, number of blocks at test time, K = 1: 50.0 %"


def test_the_sweep_ends_where_the_models_positions_end(encoder):
    longest = max(len(encoder.prompt_ids(question, 4)) for question in QUESTIONS)
    answer = max(len(encoder.answer_ids(example.answer)) for example in EXAMPLES)
    model = tiny_model("llama", encoder.tokenizer, max_positions=longest + answer - 1)
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


@pytest.mark.slow
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
