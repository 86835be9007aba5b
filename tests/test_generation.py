"""Decoding: any block from one prefill, batched, equals decoding the truncated prompt alone."""

from __future__ import annotations

import pytest
import torch
from conftest import EXAMPLES, stage, tiny_model
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from rim.config import ConfigError, MemoryConfig, PromptFormat
from rim.core.layers import Window, layer_windows
from rim.core.layout import SEGMENT, TOKEN, lay_out
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.infer.decode import generate
from rim.infer.sampling import Sampling, TokenChooser
from rim.methods import METHODS

QUESTIONS = [example.question for example in EXAMPLES]


def greedy_by_hand(model, encoder, question, blocks, count):
    """No cache, no batch, no padding: the whole sequence again for every token."""
    ids = encoder.prompt_ids(question, blocks)
    start = len(ids)
    while len(ids) < start + count:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        logits[list(encoder.memory_ids)] = float("-inf")
        token = int(logits.argmax())
        if token == encoder.stop_id:
            break
        ids.append(token)
    return tuple(ids[start:])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_generation_after_any_block_equals_generation_from_the_truncated_prompt(
    family, attention, encoder
):
    model = tiny_model(family, encoder.tokenizer, attention)
    results = generate(model, encoder, QUESTIONS, blocks=4, after="all", max_new_tokens=8)
    seen = set()
    for question, texts in zip(QUESTIONS, results, strict=True):
        assert [g.after_block for g in texts] == [1, 2, 3, 4]
        for g in texts:
            assert g.token_ids == greedy_by_hand(model, encoder, question, g.after_block, 8)
            seen.add(g.token_ids)
    assert len(seen) > 3, "the random model must say different things, or the test proves nothing"


def test_final_answer_equals_the_last_of_all_blocks(family, encoder):
    model = tiny_model(family, encoder.tokenizer)
    every = generate(model, encoder, QUESTIONS, blocks=3, after="all", max_new_tokens=6)
    final = generate(model, encoder, QUESTIONS, blocks=3, max_new_tokens=6)
    for texts, (last,) in zip(every, final, strict=True):
        assert texts[-1].token_ids == last.token_ids
        assert texts[-1].logprob == pytest.approx(last.logprob, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_answers_do_not_depend_on_batch_mates(family, batch_size, encoder):
    model = tiny_model(family, encoder.tokenizer)
    sampling = Sampling(temperature=1.0, num_samples=2, seed=3)
    for options in ({}, {"sampling": sampling}):
        together = generate(
            model, encoder, QUESTIONS, blocks=2, max_new_tokens=6, batch_size=3, **options
        )
        apart = generate(
            model,
            encoder,
            QUESTIONS,
            blocks=2,
            max_new_tokens=6,
            batch_size=batch_size,
            **options,
        )
        assert [[g.token_ids for g in texts] for texts in together] == [
            [g.token_ids for g in texts] for texts in apart
        ]


def test_questions_of_one_batch_may_have_different_numbers_of_blocks(family, encoder):
    model = tiny_model(family, encoder.tokenizer)
    mixed = generate(model, encoder, QUESTIONS, blocks=[0, 3, 1], max_new_tokens=6)
    for question, count, (g,) in zip(QUESTIONS, [0, 3, 1], mixed, strict=True):
        assert g.after_block == count
        assert g.token_ids == greedy_by_hand(model, encoder, question, count, 6)


def test_logprob_is_that_of_the_emitted_tokens(encoder):
    model = tiny_model("llama", encoder.tokenizer)
    (g,) = generate(model, encoder, QUESTIONS[:1], blocks=2, max_new_tokens=5)[0]
    prompt = encoder.prompt_ids(QUESTIONS[0], 2)
    emitted = [*g.token_ids, *([encoder.stop_id] if g.finished else [])]
    logits = model(input_ids=torch.tensor([[*prompt, *emitted]])).logits[0, len(prompt) - 1 : -1]
    logits[:, list(encoder.memory_ids)] = float("-inf")
    expected = logits.log_softmax(-1).gather(1, torch.tensor(emitted)[:, None]).sum()
    assert g.logprob == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("placement_suffix", ["", " So:"])
@pytest.mark.parametrize(
    "variant", [{"attention": "bidirectional"}, {"readouts_see_question": False}, {}]
)
def test_decoding_continues_the_training_forward_in_every_variant(
    variant, placement_suffix, tokenizer
):
    """Greedy tokens from the decoder are the training forward's own predictions."""
    from rim.core.collate import collate
    from rim.core.forward import forward_batch
    from rim.core.layout import build_layout
    from rim.core.tokens import Prompt
    from rim.methods import Readout

    memory = MemoryConfig(blocks=3, **variant)
    add_memory_tokens(tokenizer, memory)
    encoder = PromptEncoder(tokenizer, PromptFormat(memory=memory))
    suffix = tuple(encoder.text_ids(placement_suffix)) if placement_suffix else ()
    prompt = Prompt(QUESTIONS[0], encoder.prompt(QUESTIONS[0], 3).trunk, suffix_ids=suffix)
    encoder.prompt = lambda question, blocks: prompt
    model = tiny_model("llama", tokenizer)
    for after in ("all", "final"):
        for g in generate(model, encoder, QUESTIONS[:1], blocks=3, after=after, max_new_tokens=5)[
            0
        ]:
            target = (*g.token_ids, encoder.stop_id)
            layout = build_layout(prompt.trunk, [Readout(g.after_block, target, suffix)])
            logits = forward_batch(model, collate([layout]), memory).logits
            logits[:, list(encoder.memory_ids)] = float("-inf")
            predicted = logits.argmax(-1).tolist()
            assert tuple(predicted[: len(g.token_ids)]) == g.token_ids


def test_memory_tokens_are_never_generated(encoder):
    chooser = TokenChooser(Sampling(), ["a"], encoder.memory_ids, 1, torch.device("cpu"))
    logits = torch.zeros(1, len(encoder.tokenizer))
    logits[0, encoder.memory_ids[1]] = 100
    token, _ = chooser(logits, [0], 0)
    assert token.item() not in encoder.memory_ids


def test_samples_follow_the_distribution_and_the_filters():
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1, 0.0]])).clamp(min=-50)
    keys = [str(i) for i in range(4000)]
    chooser = TokenChooser(Sampling(temperature=1.0), keys, [], 1, torch.device("cpu"))
    token, _ = chooser(logits.expand(4000, -1), range(4000), 0)
    shares = torch.bincount(token, minlength=4) / 4000
    assert (shares - torch.tensor([0.6, 0.3, 0.1, 0.0])).abs().max() < 0.03
    chooser = TokenChooser(Sampling(temperature=1.0, top_k=2), keys, [], 1, torch.device("cpu"))
    assert set(chooser(logits.expand(4000, -1), range(4000), 0)[0].tolist()) == {0, 1}
    chooser = TokenChooser(Sampling(temperature=1.0, top_p=0.5), keys, [], 1, torch.device("cpu"))
    assert set(chooser(logits.expand(4000, -1), range(4000), 0)[0].tolist()) == {0}


def test_bad_requests_are_refused(encoder):
    model = tiny_model("gpt2", encoder.tokenizer, max_positions=64)
    with pytest.raises(
        ConfigError, match=r"too long: with 4 blocks it needs \d+ positions, the model has 64"
    ):
        generate(model, encoder, ["word " * 60], blocks=4)
    with pytest.raises(ConfigError, match="must be >= 0"):
        generate(model, encoder, ["a"], blocks=-1)
    with pytest.raises(ValueError, match="temperature"):
        Sampling(num_samples=3)


@pytest.mark.parametrize("training", [True, False])
def test_decoding_is_without_dropout_and_leaves_the_mode_as_it_was(training, encoder, monkeypatch):
    model = tiny_model("gpt2", encoder.tokenizer).train(training)
    modes: set[bool] = set()
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **inputs: modes.add(model.training) or forward(**inputs)
    )
    generate(model, encoder, QUESTIONS[:1], blocks=1, max_new_tokens=2)
    assert modes == {False}
    assert {module.training for module in model.modules()} == {training}


def test_a_long_question_does_not_shorten_its_batch_mates(family, encoder):
    model = tiny_model(family, encoder.tokenizer, max_positions=48)
    questions = ["a?", "a " * 18]
    options = {"blocks": 2, "after": "all", "max_new_tokens": 30}
    together = generate(model, encoder, questions, **options)
    for question, texts in zip(questions, together, strict=True):
        alone = generate(model, encoder, [question], **options)[0]
        assert [g.token_ids for g in texts] == [g.token_ids for g in alone]
        for g in texts:
            room = 48 - len(encoder.prompt_ids(question, g.after_block)) + 1
            assert g.finished or len(g.token_ids) == min(30, room)


def test_an_answer_ends_where_the_positions_end(encoder):
    model = tiny_model("gpt2", encoder.tokenizer, max_positions=64)
    question = "a " * 24
    length = len(encoder.prompt_ids(question, 1))
    (g,) = generate(model, encoder, [question], blocks=1, max_new_tokens=500)[0]
    assert g.finished or len(g.token_ids) == 64 - length + 1


def test_prompt_ids_at_inference_equal_the_trunk_ids_of_training(encoder):
    for example in EXAMPLES:
        layout = lay_out(METHODS["rim"], example, stage(objective="answer"), encoder)
        is_trunk = layout.fields_TF[:, SEGMENT] == 0
        trunk = layout.fields_TF[is_trunk, TOKEN].tolist()
        assert trunk == encoder.prompt_ids(example.question, 4)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gpt2", {}),
        ("llama", {}),
        ("qwen2", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
        ("mistral", {"sliding_window": 9}),
        ("mistral", {"sliding_window": None}),
        ("gemma3_text", {"sliding_window": 9}),
        ("phi3", {"sliding_window": 9}),
    ],
)
def test_a_window_is_seen_where_transformers_cache_sees_one(family, settings):
    config = AutoConfig.for_model(family, num_hidden_layers=6, **settings)
    slides = any(DynamicCache(config=config).is_sliding)
    assert (set(layer_windows(config).values()) - {None} == {Window(9)}) == slides


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_answers_beyond_a_sliding_window_equal_those_of_truncated_prompts(family, encoder):
    """All layers alike (mistral), and layers of two kinds: read-outs stand far behind their block
    in columns, but not in positions, which the window is measured in.
    """
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    if family == "gemma3_text":
        sizes |= {"layer_types": ["sliding_attention", "full_attention"]}
    config = AutoConfig.for_model(
        family,
        vocab_size=len(encoder.tokenizer),
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=9,
        **sizes,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    for parameter in model.parameters():
        parameter.data.mul_(5 if parameter.ndim > 1 else 1)
    every = generate(model, encoder, QUESTIONS, blocks=3, after="all", max_new_tokens=4)
    for question, row in zip(QUESTIONS, every, strict=True):
        assert len(encoder.prompt_ids(question, 3)) > 9
        for g in row:
            assert g.token_ids == greedy_by_hand(model, encoder, question, g.after_block, 4)
