"""Blind drop-out: a read-out that does not see the question, in training, by a coin."""

from __future__ import annotations

import pytest
import torch
from conftest import EXAMPLES, stage, tiny_model
from test_training import losses, raw_recipe, run

from rim.config import ConfigError
from rim.config.recipe_yaml import recipe_from_dict
from rim.core.blind_readouts import blind_coins
from rim.core.collate import collate
from rim.core.forward import forward_readouts
from rim.core.layout import lay_out
from rim.methods import METHODS

COINS = {"seed": 0, "step": 3}
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.mark.parametrize("chat", [False, True])
@torch.no_grad()
def test_a_blind_readout_equals_a_separate_pass_that_hides_the_question(family, chat, encoder):
    """Parallel read-outs, each with its own coin, against one pass a read-out: the trunk sees the
    question, the read-out's tokens (a chat model's header among them) see it only with luck.
    """
    if chat:
        encoder.tokenizer.chat_template = CHAT
        encoder = type(encoder)(encoder.tokenizer, encoder.format)
    model = tiny_model(family, encoder.tokenizer)
    chosen = stage(objective="steps", alignment="own_step", surplus_blocks="answer")
    layouts = [lay_out(METHODS["rim"], e, chosen, encoder) for e in EXAMPLES]
    batch = collate(layouts)
    width = int(batch["num_readouts"].max())
    blind_BR = blind_coins(0.5, "readout", len(EXAMPLES), width, **COINS)
    assert 0 < blind_BR.sum() < blind_BR.numel(), "both kinds occur"
    loss = forward_readouts(
        model, batch, encoder.format.memory, torch.ones(3, width), blind_BR=blind_BR
    )
    for b, example in enumerate(EXAMPLES):
        for r, readout in enumerate(METHODS["rim"].readouts(example, chosen, encoder)):
            prompt = encoder.prompt(example.question, readout.after_block)
            fed = [*prompt.prefix_ids(readout.after_block), *readout.target_ids[:-1]]
            ids = torch.tensor([[*prompt.trunk.ids, *fed]])
            mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
            if blind_BR[b, r]:
                mask[len(prompt.trunk.ids) :, : len(prompt.trunk.question_ids)] = False
            logits = model(
                input_ids=ids,
                attention_mask=mask[None, None],
                position_ids=torch.arange(ids.shape[1])[None],
                use_cache=False,
            ).logits[0, -len(readout.target_ids) :]
            expected = torch.nn.functional.cross_entropy(
                logits, torch.tensor(readout.target_ids), reduction="sum"
            )
            torch.testing.assert_close(loss.nll_BR[b, r], expected, atol=1e-5, rtol=1e-5)


def test_a_coin_is_for_a_batch_an_example_or_a_readout():
    def draws(coin, step, size=64, first=0):
        return blind_coins(0.5, coin, size, 4, seed=0, step=step, first=first)

    batches = torch.stack([draws("batch", step) for step in range(200)])
    assert (batches == batches[:, :1, :1]).all()
    assert 0.35 < batches[:, 0, 0].float().mean() < 0.65
    examples = draws("example", 0)
    assert (examples == examples[:, :1]).all() and 0.3 < examples[:, 0].float().mean() < 0.7
    readouts = draws("readout", 0)
    assert not (readouts == readouts[:, :1]).all() and 0.35 < readouts.float().mean() < 0.65
    for coin in ("batch", "example", "readout"):
        parts = torch.cat([draws(coin, 5, 24), draws(coin, 5, 40, first=24)])
        assert torch.equal(parts, draws(coin, 5)), "a batch in parts is the whole one"
        assert not blind_coins(0.0, coin, 8, 4, **COINS).any()
        assert blind_coins(1.0, coin, 8, 4, **COINS).all()


def blind_recipe(tmp_path, coin, **changes):
    raw = raw_recipe(tmp_path, **changes)
    raw["templates"] |= {"answer": "#{answer}"}
    for settings in raw["stages"]:
        settings |= {"blind_readouts": 0.5, "blind_coin": coin}
    return raw


@pytest.mark.slow
@pytest.mark.parametrize("coin", ["batch", "readout"])
def test_accumulation_changes_nothing(coin, tmp_path):
    whole = run(blind_recipe(tmp_path, coin, name="whole"))
    parts = blind_recipe(tmp_path, coin, name="parts")
    for settings in parts["stages"]:
        settings["micro_batch_size"] = 2
        settings["dropout"] = 0.0
    parts["stages"], whole_stages = parts["stages"][:1], losses(whole)
    seen = losses(run(parts))
    for (_, _, expected), (_, _, actual) in zip(whole_stages, seen, strict=False):
        assert actual == pytest.approx(expected, rel=1e-4)
    plain = raw_recipe(tmp_path, name="plain")
    plain["templates"] |= {"answer": "#{answer}"}
    assert losses(run(plain)) != whole_stages, "blindness changes the loss"


def test_what_blindness_cannot_be_for_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="of the read-out's own before the answer"):
        raw = blind_recipe(tmp_path, "batch")
        run(raw | {"templates": raw["templates"] | {"answer": "{answer}"}})
    assert not (tmp_path / "runs" / "run").exists(), "refused before the first step"
    direct = blind_recipe(tmp_path, "batch", method="direct")
    direct["stages"] = [{k: v for k, v in direct["stages"][1].items() if k != "weighting"}]
    with pytest.raises(ConfigError, match="blind_readouts is for methods with blocks"):
        recipe_from_dict(direct)
    hidden = blind_recipe(tmp_path, "batch", memory={"blocks": 5, "readouts_see_question": False})
    with pytest.raises(ConfigError, match="leave blind_readouts out"):
        recipe_from_dict(hidden)
