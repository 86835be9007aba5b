"""The central claim: parallel read-outs equal separate causal forward passes."""

from __future__ import annotations

import pytest
import torch
from conftest import EXAMPLES, stage, tiny_model
from transformers import Gemma2Config, Gemma2ForCausalLM

from rim.config import MemoryConfig
from rim.core.blind_readouts import blind_coins
from rim.core.collate import collate
from rim.core.forward import forward_batch, forward_readouts, head_makes_logits
from rim.core.layout import lay_out
from rim.core.packing import pack_rows
from rim.core.readout_weights import readout_weights
from rim.methods import METHODS

BLOCKS = MemoryConfig(blocks=4)

STAGES = {
    "steps-next": stage(objective="steps", alignment="next_step"),
    "steps-own": stage(objective="steps", alignment="own_step"),
    "steps-own-surplus": stage(
        objective="steps",
        alignment="own_step",
        surplus_blocks="answer",
        weighting="anneal_relative",
    ),
    "answer": stage(objective="answer", weighting="later_more"),
    "direct": stage(objective="answer"),
    "cot": stage(objective="solution"),
}
METHOD_OF_STAGE = {"direct": "direct", "cot": "cot"}


def layouts_of(name, encoder):
    method = METHODS[METHOD_OF_STAGE.get(name, "rim")]
    return [lay_out(method, example, STAGES[name], encoder) for example in EXAMPLES]


def weights_of(name, batch, progress=0.4):
    return readout_weights(
        STAGES[name].weighting,
        batch["num_readouts"],
        batch["num_step_readouts"],
        width=int(batch["num_readouts"].max()),
        max_readouts=5,
        progress=progress,
    )


def separate_readouts(model, encoder, name, example):
    """What the read-outs of one example are by definition: one plain causal pass each, no mask
    given.
    """
    method = METHODS[METHOD_OF_STAGE.get(name, "rim")]
    logits, nll = [], []
    for target in method.readouts(example, STAGES[name], encoder):
        prompt = encoder.prompt_ids(example.question, target.after_block)
        ids = torch.tensor([[*prompt, *target.target_ids]])
        with torch.no_grad():
            output = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        logits.append(output)
        nll.append(
            torch.nn.functional.cross_entropy(output, ids[0, len(prompt) :], reduction="sum")
        )
    return logits, torch.stack(nll)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", STAGES)
def test_parallel_readouts_equal_separate_forwards(family, name, attention, encoder):
    model = tiny_model(family, encoder.tokenizer, attention)
    batch = collate(layouts_of(name, encoder))  # three lengths, so the batch is padded
    weights_BR = weights_of(name, batch)
    with torch.no_grad():
        loss = forward_readouts(model, batch, BLOCKS, weights_BR)
        logits_NV = forward_batch(model, batch, BLOCKS).logits
    rows = torch.nonzero(batch["targets"] >= 0)[:, 0]
    readouts = batch["readout_ids"][batch["targets"] >= 0]
    for b, example in enumerate(EXAMPLES):
        expected_logits, expected_nll = separate_readouts(model, encoder, name, example)
        count = len(expected_nll)
        torch.testing.assert_close(loss.nll_BR[b, :count], expected_nll, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            loss.per_example_B[b],
            (weights_BR[b, :count] * expected_nll).sum(),
            atol=1e-5,
            rtol=1e-5,
        )
        for r, expected in enumerate(expected_logits):
            # Positions of a read-out keep their order in the flat sequence, the anchor first.
            actual = logits_NV[(rows == b) & (readouts == r)]
            assert (actual - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("name", ["steps-own", "answer"])
def test_flex_attention_equals_sdpa(family, name, encoder):
    batch = collate(layouts_of(name, encoder))
    results = []
    for attention in ("sdpa", "flex_attention"):
        # flex needs at least 16 dimensions a head
        model = tiny_model(family, encoder.tokenizer, attention)
        with torch.no_grad():
            results.append(forward_batch(model, batch, BLOCKS).logits)
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["steps-next", "answer", "cot"])
def test_loss_of_an_example_does_not_depend_on_its_batch_mates(family, name, encoder):
    model = tiny_model(family, encoder.tokenizer)
    layouts = layouts_of(name, encoder)
    together = collate(layouts)
    with torch.no_grad():
        loss = forward_readouts(model, together, BLOCKS, weights_of(name, together))
        for b, layout in enumerate(layouts):
            alone = collate([layout])
            single = forward_readouts(model, alone, BLOCKS, weights_of(name, alone))
            torch.testing.assert_close(
                loss.per_example_B[b], single.per_example_B[0], atol=1e-5, rtol=1e-5
            )


def test_readouts_never_see_each_other_nor_later_blocks(encoder):
    """Changing a later block or another read-out leaves a read-out's logits bit for bit alone."""
    model = tiny_model("llama", encoder.tokenizer)
    batch = collate([layouts_of("answer", encoder)[0]])
    before = forward_batch(model, batch, BLOCKS).logits
    readouts = batch["readout_ids"][batch["targets"] >= 0]
    disturbed = {name: tensor.clone() for name, tensor in batch.items()}
    others = (disturbed["block_ids"] > 2) | (disturbed["segment_ids"] == 1)
    disturbed["input_ids"][others] = encoder.text_ids("z")[0]
    after = forward_batch(model, disturbed, BLOCKS).logits
    assert torch.equal(before[readouts == 1], after[readouts == 1])
    assert not torch.allclose(before[readouts == 2], after[readouts == 2])


def test_question_can_be_hidden_from_readouts_but_not_from_blocks(encoder):
    hidden = MemoryConfig(blocks=4, readouts_see_question=False)
    model = tiny_model("llama", encoder.tokenizer, layers=1)
    batch = collate([layouts_of("answer", encoder)[0]])
    visible_logits, hidden_logits = (
        forward_batch(model, batch, BLOCKS).logits,
        forward_batch(model, batch, hidden).logits,
    )
    # A block's last token is trunk and reads the question either way: the first token is the same
    # ...
    is_anchor = (batch["segment_ids"] == 0)[batch["targets"] >= 0]
    assert torch.equal(visible_logits[is_anchor], hidden_logits[is_anchor])
    # ... while the read-out's own tokens lose sight of it.
    assert not torch.allclose(visible_logits[~is_anchor], hidden_logits[~is_anchor])


def test_bidirectional_blocks_change_blocks_only(encoder):
    both_ways = MemoryConfig(blocks=4, attention="bidirectional")
    model = tiny_model("llama", encoder.tokenizer)
    batch = collate([layouts_of("answer", encoder)[0]])
    causal, bidirectional = (
        forward_batch(model, batch, BLOCKS).logits,
        forward_batch(model, batch, both_ways).logits,
    )
    assert not torch.allclose(causal, bidirectional)
    direct = collate([layouts_of("direct", encoder)[0]])
    assert torch.equal(
        forward_batch(model, direct, BLOCKS).logits, forward_batch(model, direct, both_ways).logits
    )


def test_flash_attention_is_refused(encoder):
    model = tiny_model("llama", encoder.tokenizer)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="cannot express the read-out mask"):
        forward_batch(model, collate(layouts_of("answer", encoder)), BLOCKS)


def packed_and_not(layouts):
    """A batch whose examples share rows, and the same one row each."""
    packed, plain = collate(layouts, pack=True), collate(layouts)
    assert len(packed["input_ids"]) < len(plain["input_ids"]) == len(packed["num_readouts"])
    return packed, plain


@pytest.mark.parametrize("name", ["steps-own-surplus", "steps-next", "answer", "cot"])
@pytest.mark.parametrize("blind", [False, True])
def test_examples_that_share_rows_have_the_losses_and_gradients_they_have_alone(
    family, name, blind, encoder
):
    model = tiny_model(family, encoder.tokenizer)
    weight = model.get_input_embeddings().weight
    layouts = [*layouts_of(name, encoder), *layouts_of(name, encoder)[::-1]]
    found = []
    for batch in packed_and_not(layouts):
        size = batch["target_counts"].shape
        coins_BR = blind_coins(0.5, "readout", *size, seed=1, step=0) if blind else None
        loss = forward_readouts(model, batch, BLOCKS, weights_of(name, batch), blind_BR=coins_BR)
        gradient = torch.autograd.grad(loss.per_example_B.sum(), weight)[0]
        found.append((loss, gradient))
    (packed, packed_gradient), (plain, plain_gradient) = found
    for field in ("per_example_B", "nll_BR", "tokens_BR", "correct_BR"):
        torch.testing.assert_close(
            getattr(packed, field), getattr(plain, field), atol=1e-5, rtol=1e-5
        )
    scale = plain_gradient.abs().max()
    assert (packed_gradient - plain_gradient).abs().max() <= 1e-5 * scale


def test_examples_that_share_a_row_never_see_each_other(encoder):
    model = tiny_model("llama", encoder.tokenizer)
    batch, _ = packed_and_not(layouts_of("answer", encoder))
    before = forward_batch(model, batch, BLOCKS).logits
    examples = batch["target_cells"] // batch["target_counts"].shape[1]
    for b in range(len(EXAMPLES)):
        disturbed = {name: tensor.clone() for name, tensor in batch.items()}
        disturbed["input_ids"][batch["example_ids"] == b] = encoder.text_ids("z")[0]
        after = forward_batch(model, disturbed, BLOCKS).logits
        assert torch.equal(before[examples != b], after[examples != b])
        assert not torch.allclose(before[examples == b], after[examples == b])


def test_looking_whether_the_head_makes_the_logits_draws_nothing(encoder):
    """A resumed run looks again, where one that never stopped does not."""
    model = tiny_model("gpt2", encoder.tokenizer)
    dropouts = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    for dropout in dropouts:
        dropout.p = 0.5
    model.train()
    before = torch.get_rng_state()
    assert head_makes_logits(model) and dropouts and all(m.training for m in dropouts)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_logits_in_chunks_give_the_same_loss_and_gradients(family, chunk, encoder):
    model = tiny_model(family, encoder.tokenizer)
    batch = collate(layouts_of("answer", encoder), pack=True)
    assert head_makes_logits(model)
    found = []
    for size in (None, chunk):
        loss = forward_readouts(model, batch, BLOCKS, weights_of("answer", batch), chunk=size)
        found.append((loss, torch.autograd.grad(loss.per_example_B.sum(), model.parameters())))
    (whole, whole_gradients), (parts, gradients) = found
    torch.testing.assert_close(parts.per_example_B, whole.per_example_B)
    assert torch.equal(parts.correct_BR, whole.correct_BR)
    torch.testing.assert_close(gradients, whole_gradients, atol=1e-4, rtol=1e-4)


def test_a_head_whose_output_is_changed_behind_it_is_noticed(encoder):
    config = Gemma2Config(
        vocab_size=len(encoder.tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        pad_token_id=0,
    )
    assert config.final_logit_softcapping
    assert not head_makes_logits(Gemma2ForCausalLM(config))


def test_packed_rows_waste_little_and_lose_nobody():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        lengths = (torch.rand(128, generator=generator).square() * 300 + 60).long().tolist()
        rows = pack_rows(lengths)
        assert sorted(b for row in rows for b in row) == list(range(128))
        width = max(sum(lengths[b] for b in row) for row in rows)
        assert sum(lengths) >= 0.95 * width * len(rows)
    assert pack_rows([5]) == [[0]]
    assert pack_rows([5, 5]) == [[0], [1]]
