"""Methods that feed hidden states back equal a naive loop: one example, one token or pass at a
time, no cache, no mask, no padding.
"""

from __future__ import annotations

import pytest
import torch
from conftest import EXAMPLES, decoder_layers, stage, tiny_model

from rim.config import MemoryConfig, ModelConfig, PromptFormat, TemplatesConfig
from rim.core.collate import collate
from rim.core.feedback import feedback_of
from rim.core.forward import forward_readouts
from rim.core.layout import build_layout, lay_out
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.infer.decode import generate
from rim.methods import METHODS, Readout
from rim.models.lora import prepare_for_training
from rim.models.modules import attach_module

# memory_tokens 1 and 2, one latent and several, each framing somewhere
FORMATS = {
    "coconut": MemoryConfig(blocks=2, tokens=2, framing="once"),
    "coconut-framed-each": MemoryConfig(blocks=2, tokens=1, framing="each"),
    "coconut-scaled": MemoryConfig(blocks=2, tokens=2, framing="once", feedback_scale="embeddings"),
    "codi": MemoryConfig(blocks=3, tokens=1, framing="once"),
    "lotus": MemoryConfig(blocks=2, tokens=4, framing="once", passes=3),
    "rim": MemoryConfig(blocks=3, passes=3),
    "rim-unframed": MemoryConfig(blocks=3, tokens=2, framing="none", passes=2),
    "rim-scaled": MemoryConfig(blocks=2, passes=2, feedback_scale="embeddings"),
}
STAGES = {
    "coconut": [
        stage(objective="solution"),
        stage(objective="remaining", removed_steps=1),
        stage(objective="remaining", removed_steps="all"),
    ],
    "codi": [
        stage(objective="distillation", distillation_weight=20.0),
        stage(objective="distillation", drop_last_step=False),
    ],
    "lotus": [stage(objective="solution"), stage(objective="steps", step_weight=0.05)],
    "rim": [
        stage(objective="steps", alignment="own_step", surplus_blocks="answer"),
        stage(objective="steps"),
        stage(objective="answer"),
    ],
}
CASES = [(name, i) for name in FORMATS for i in range(len(STAGES[name.partition("-")[0]]))]


def method_of(name):
    return name.partition("-")[0]


def encoder_for(name, tokenizer):
    prompt_format = PromptFormat(
        method=method_of(name), memory=FORMATS[name], templates=TemplatesConfig()
    )
    add_memory_tokens(tokenizer, prompt_format.memory)
    return PromptEncoder(tokenizer, prompt_format)


def model_for(name, family, encoder):
    model = tiny_model(family, encoder.tokenizer)
    if method_of(name) == "codi":
        make = METHODS["codi"].extra_modules["latent_projection"]
        attach_module(model, "latent_projection", make(32))
        with torch.no_grad():  # as in tiny_model: inputs must matter
            for parameter in model.latent_projection.parameters():
                parameter.mul_(3)
    return model


def last_states(model, embeddings):
    """Final hidden states `[T, E]` of one sequence, by one plain causal pass."""
    return model.base_model(inputs_embeds=embeddings[None], use_cache=False).last_hidden_state[0]


def naive_embeddings(model, encoder, question, blocks):
    """Input embeddings of a trunk, latents filled as the papers say."""
    ids = torch.tensor(encoder.prompt(question, blocks).trunk.ids)
    tokens = model.get_input_embeddings()(ids)
    is_latent = ids == encoder.memory_ids[1]
    size = model.get_input_embeddings().weight.pow(2).mean().sqrt()

    def fed(state):
        if encoder.format.memory.feedback_scale == "none":
            return state
        return state * size / state.pow(2).mean(-1, keepdim=True).sqrt()

    if encoder.format.feedback == "chain":
        rows = []
        for row, latent in zip(tokens, is_latent, strict=True):
            if latent:
                state = last_states(model, torch.stack(rows))[-1]
                row = model.latent_projection(state) if encoder.format.method == "codi" else state
                row = fed(row)
            rows.append(row)
        return torch.stack(rows)
    filled = tokens
    for _ in range(encoder.format.memory.passes - 1):
        filled = tokens + is_latent[:, None] * fed(last_states(model, filled))
    return filled


def naive_readout(model, encoder, example, target):
    """(logits, hidden states of all layers) that predict a target, one sequence."""
    trunk = naive_embeddings(model, encoder, example.question, target.after_block)
    prefix = encoder.prompt(example.question, target.after_block).prefix_ids(target.after_block)
    fed = torch.tensor([*prefix, *target.target_ids[:-1]], dtype=torch.long)
    sequence = torch.cat([trunk, model.get_input_embeddings()(fed)])
    output = model(inputs_embeds=sequence[None], use_cache=False, output_hidden_states=True)
    start = len(trunk) + len(prefix) - 1
    return output.logits[0, start:], [states[0, start:] for states in output.hidden_states]


def naive_nll(logits, ids):
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum")


def naive_losses(model, encoder, example, chosen):
    """Negative log-probability of every read-out of an example, one pass (or chain) each."""
    losses, marked = [], []
    targets = METHODS[encoder.format.method].readouts(example, chosen, encoder)
    for target in targets:
        if target.in_place:
            blocks = max(t.after_block for t in targets)
            trunk = naive_embeddings(model, encoder, example.question, blocks)
            logits = model(inputs_embeds=trunk[None], use_cache=False).logits[0]
            before = len(encoder.prompt(example.question, 1).trunk.question_ids) + len(
                encoder.opening_ids
            )
            start = before + len(encoder.block_ids) * (target.after_block - 1)
            losses.append(
                naive_nll(logits[start : start + len(target.target_ids)], target.target_ids)
            )
            continue
        logits, states = naive_readout(model, encoder, example, target)
        losses.append(naive_nll(logits, target.target_ids))
        if target.marked is not None:
            marked.append([layer[target.marked] for layer in states])
    return torch.stack(losses), marked


@pytest.mark.slow
@pytest.mark.parametrize(("name", "index"), CASES)
def test_training_equals_the_naive_loop(family, name, index, tokenizer):
    encoder = encoder_for(name, tokenizer)
    model = model_for(name, family, encoder)
    chosen = STAGES[method_of(name)][index]
    layouts = [lay_out(METHODS[method_of(name)], e, chosen, encoder) for e in EXAMPLES]
    batch = collate(layouts, align_trunks=True)
    weights_BR = torch.ones(len(EXAMPLES), int(batch["num_readouts"].max()))
    loss = forward_readouts(
        model, batch, encoder.format.memory, weights_BR, feedback=feedback_of(encoder)
    )
    # A matrix of the first layer: the embedding is tied to the head, whose share would hide much.
    weight = next(p for p in decoder_layers(model)[0].parameters() if p.ndim == 2)
    gradient = torch.autograd.grad(loss.per_example_B.sum(), weight)[0]
    expected = [naive_losses(model, encoder, example, chosen)[0] for example in EXAMPLES]
    for b, nll in enumerate(expected):
        assert batch["num_readouts"][b] == len(nll)
        torch.testing.assert_close(loss.nll_BR[b, : len(nll)], nll.detach(), atol=1e-4, rtol=1e-4)
    naive_gradient = torch.autograd.grad(torch.cat(expected).sum(), weight)[0]
    scale = naive_gradient.abs().max()
    assert (gradient - naive_gradient).abs().max() <= 2e-3 * scale, "gradients through the loop"


@pytest.mark.parametrize("drop_last_step", [True, False])
def test_codis_loss_by_hand(family, drop_last_step, tokenizer):
    """Teacher, student and distillation, the teacher's states without a gradient."""
    encoder = encoder_for("codi", tokenizer)
    model = model_for("codi", family, encoder)
    chosen = stage(objective="distillation", drop_last_step=drop_last_step)
    layouts = [lay_out(METHODS["codi"], e, chosen, encoder) for e in EXAMPLES]
    batch = collate(layouts, align_trunks=True)

    def loss_of(weight):
        taught = chosen.model_copy(update={"distillation_weight": weight})
        return forward_readouts(
            model,
            batch,
            encoder.format.memory,
            torch.ones(3, 2),
            feedback=feedback_of(encoder),
            extra_loss=METHODS["codi"].extra_loss(taught),
        ).per_example_B

    losses, marked = zip(
        *(naive_losses(model, encoder, example, chosen) for example in EXAMPLES), strict=True
    )
    # [example][teacher, student][layer] -> [teacher, student][layer] of [B, D]
    teacher, student = (
        [torch.stack(layer) for layer in zip(*(m[side] for m in marked), strict=True)]
        for side in (0, 1)
    )
    assert len(teacher) == model.config.num_hidden_layers + 1
    distances = [
        torch.nn.functional.smooth_l1_loss(s, t.detach(), reduction="none").mean(1)
        / t.std().detach()
        for s, t in zip(student, teacher, strict=True)
    ]
    expected = torch.stack([nll.sum() for nll in losses]) + 20 * torch.stack(distances).mean(0)
    torch.testing.assert_close(loss_of(20.0), expected, atol=1e-3, rtol=1e-4)
    weight = model.latent_projection[0].weight
    actual_gradient = torch.autograd.grad(loss_of(20.0).sum(), weight)[0]
    naive_gradient = torch.autograd.grad(expected.sum(), weight)[0]
    torch.testing.assert_close(
        actual_gradient, naive_gradient, atol=2e-3 * float(naive_gradient.abs().max()), rtol=1e-2
    )


def naive_answer(model, encoder, question, blocks, limit):
    """Greedy decoding by whole passes over an ever longer sequence."""
    sequence = naive_embeddings(model, encoder, question, blocks)
    prefix = encoder.prompt(question, blocks).prefix_ids(blocks)
    prefix = torch.tensor(prefix, dtype=torch.long)
    sequence = torch.cat([sequence, model.get_input_embeddings()(prefix)])
    tokens = []
    while len(tokens) < limit:
        logits = model(inputs_embeds=sequence[None], use_cache=False).logits[0, -1].clone()
        logits[list(encoder.memory_ids)] = -torch.inf
        token = int(logits.argmax())
        if token == encoder.stop_id:
            break
        tokens.append(token)
        sequence = torch.cat([sequence, model.get_input_embeddings()(torch.tensor([token]))])
    return tuple(tokens)


QUESTIONS = [example.question for example in EXAMPLES]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@torch.no_grad()
def test_answers_equal_the_naive_loop_for_any_number_of_blocks(family, name, tokenizer):
    encoder = encoder_for(name, tokenizer)
    model = model_for(name, family, encoder)
    counts = [3, 0, 1]
    together = generate(model, encoder, QUESTIONS, blocks=counts, max_new_tokens=6)
    for question, count, (answer,) in zip(QUESTIONS, counts, together, strict=True):
        assert answer.token_ids == naive_answer(model, encoder, question, count, 6)
    every = generate(model, encoder, QUESTIONS, blocks=3, after="all", max_new_tokens=6)
    for question, answers in zip(QUESTIONS, every, strict=True):
        assert [a.after_block for a in answers] == [1, 2, 3]
        for answer in answers:
            expected = naive_answer(model, encoder, question, answer.after_block, 6)
            assert answer.token_ids == expected
    assert len({a.token_ids for answers in every for a in answers}) > 3, "the test tells them apart"


def test_a_chat_models_closing_token_comes_before_the_assistants_header(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    encoder = encoder_for("coconut", tokenizer)
    ids = encoder.prompt_ids("hello", 2)
    start, memory, end = encoder.memory_ids
    at = ids.index(start)
    assert ids[at : at + 6] == [start, memory, memory, memory, memory, end]
    assert tokenizer.decode(ids[:at]) == "[user]hello"
    assert tokenizer.decode(ids[at + 6 :]) == "[/][assistant]"
    assert encoder.prompt_ids("hello", 0) == tokenizer.encode("[user]hello[/][assistant]")


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@torch.no_grad()
def test_answers_have_the_training_passs_probability_where_the_question_is_hidden(
    family, name, tokenizer
):
    memory = FORMATS[name].model_copy(update={"readouts_see_question": False})
    add_memory_tokens(tokenizer, memory)
    encoder = PromptEncoder(tokenizer, PromptFormat(method=method_of(name), memory=memory))
    model = model_for(name, family, encoder)
    count = memory.blocks
    answers = generate(model, encoder, QUESTIONS, blocks=count, after="all", max_new_tokens=4)
    for question, row in zip(QUESTIONS, answers, strict=True):
        prompt = encoder.prompt(question, count)
        for answer in row:
            target = answer.token_ids + (encoder.stop_id,) * answer.finished
            prefix = prompt.prefix_ids(answer.after_block)
            layout = build_layout(prompt.trunk, [Readout(answer.after_block, target, prefix)])
            loss = forward_readouts(
                model,
                collate([layout], align_trunks=True),
                memory,
                torch.ones(1, 1),
                feedback=feedback_of(encoder),
            )
            # Memory tokens are forbidden in answers, which makes the others a little likelier.
            assert answer.logprob >= -float(loss.nll_BR) - 1e-3
            assert answer.logprob == pytest.approx(-float(loss.nll_BR), abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coconut", "codi", "lotus", "rim"])
def test_lora_trains_through_the_loop(family, name, tokenizer):
    """The adapters' gradient is the naive loop's, so nothing on the way is detached."""
    encoder = encoder_for(name, tokenizer)
    config = ModelConfig(base="x", lora={"rank": 4})  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = prepare_for_training(
        model_for(name, family, encoder),
        config,
        list(encoder.memory_ids),
        0.0,
        METHODS[name].extra_modules,
    )
    chosen = STAGES[name][-1]
    batch = collate(
        [lay_out(METHODS[name], e, chosen, encoder) for e in EXAMPLES], align_trunks=True
    )
    weights_BR = torch.ones(3, int(batch["num_readouts"].max()))
    loss = forward_readouts(
        model, batch, encoder.format.memory, weights_BR, feedback=feedback_of(encoder)
    )
    plain = model.get_base_model()
    naive = torch.cat([naive_losses(plain, encoder, e, chosen)[0] for e in EXAMPLES])
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    adapters = [n for n in trained if "lora_B" in n and ".0." in n]
    assert adapters
    actual, expected = (
        torch.autograd.grad(value, [trained[n] for n in adapters])
        for value in (loss.per_example_B.sum(), naive.sum())
    )
    for a, e in zip(actual, expected, strict=True):
        assert (a - e).abs().max() <= 5e-3 * e.abs().max()
