"""Every family of models: trained, saved, asked after every block, each read-out right."""

from __future__ import annotations

import inspect
import io
import json

import families
import pytest
import torch
from conftest import EXAMPLES, stage, tiny_model
from pydantic import ValidationError
from rich.console import Console

from rim.config import ConfigError, MemoryConfig
from rim.core import masks
from rim.core.collate import collate
from rim.core.forward import forward_readouts
from rim.core.layers import Window
from rim.core.layout import lay_out
from rim.core.masks import get_readout_mask_mod
from rim.core.tokens import PromptEncoder
from rim.evaluate.cache_interventions import turn_keys, zero
from rim.evaluate.controls import run_controls
from rim.evaluate.protocols.asking import Asking
from rim.evaluate.states import block_states
from rim.infer.decode import generate
from rim.infer.reasoner import Reasoner
from rim.infer.sampling import Sampling
from rim.methods import METHODS
from rim.models.folder import read_prompt_format
from rim.models.loading import load_base
from rim.train.curriculum import train
from rim.train.dry_run import dry_run
from rim.train.parallel_or_separate import readout_error

QUIET = Console(file=io.StringIO())
#: Families whose attention adds or leaves out by column index, or whose layers carry a state.
SEPARATE = {
    *("falcon-alibi", "mpt", "bloom"),
    *("gpt_neo", "lfm2", "qwen3_next", "qwen3_5_text", "falcon_h1", "jamba", "mamba"),
}
#: Families with windows. Not gpt_oss: its attention sinks run on flex attention on CUDA only.
WINDOWED = [
    *("mistral", "phi3", "starcoder2", "gemma2", "gemma3_text", "cohere2", "exaone4"),
    "llama4_text",
]


# transformers says once that it runs recurrent layers without their optional kernels.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:transformers")
@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_family_is_trained_and_answers_as_plain_passes_do(family, tmp_path):
    row = families.check(family, tmp_path)
    assert row["readouts"] == ("separate" if family in SEPARATE else "parallel")
    assert row["separate_error"] < 3e-5  # rounding, which differs between processors
    if family in SEPARATE:
        assert isinstance(row["parallel_error"], str) or row["parallel_error"] > 0.01
    else:
        assert row["parallel_error"] < 1e-5
    assert row["losses_finite"]
    assert row["answers_equal"] == row["answers"] == 3 * families.BLOCKS
    assert row["different_answers"] > 1
    assert row["batch_mates_equal"]
    assert row["reloaded_equal"]


def logs_of(run):
    """Numbers of every log record; what it cost (time, operations) left out."""
    lines = run.metrics_file.read_text(encoding="utf-8").splitlines()
    return [
        {
            name: value
            for name, value in json.loads(line).items()
            if isinstance(value, float | int)
            and "second" not in name
            and "runtime" not in name
            and name != "total_flos"
        }
        for line in lines
    ]


@pytest.mark.slow
def test_separate_readouts_train_with_the_losses_and_logs_of_parallel_ones(tmp_path):
    logs = {}
    for way in ("parallel", "separate"):
        families.tiny_base("llama", tmp_path / way / "base")
        run = train(families.recipe_of("llama", tmp_path / way, readouts=way), console=QUIET)
        logs[way] = logs_of(run)
        assert read_prompt_format(run.model_dir).readouts == way
        record = json.loads(run.readouts_file.read_text(encoding="utf-8"))["grounding"]
        assert record["readouts"] == way
        assert record["reason"] == "as the recipe says"
    assert len(logs["parallel"]) > 4
    for parallel, separate in zip(logs["parallel"], logs["separate"], strict=True):
        assert separate == pytest.approx(parallel, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("objective", ["steps", "answer"])
def test_separate_rows_have_the_losses_of_the_layout(objective, family, encoder):
    model = tiny_model(family, encoder.tokenizer)
    settings = stage(objective=objective, alignment="own_step", surplus_blocks="answer")
    layouts = [lay_out(METHODS["rim"], x, settings, encoder) for x in EXAMPLES]
    weights_BR = torch.rand(3, max(x.num_readouts for x in layouts))
    with torch.no_grad():
        parallel, separate = (
            forward_readouts(
                model, collate(layouts, separate=way), encoder.format.memory, weights_BR
            )
            for way in (False, True)
        )
    torch.testing.assert_close(separate.nll_BR, parallel.nll_BR, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(separate.per_example_B, parallel.per_example_B)
    assert torch.equal(separate.tokens_BR, parallel.tokens_BR)
    assert torch.equal(separate.correct_BR, parallel.correct_BR)


def starting_model(family, folder, **model):
    attention = families.tiny_base(family, folder / "base")
    recipe = families.recipe_of(family, folder, attention=attention, **model)
    return recipe, *load_base(recipe.model, recipe.prompt_format, (), 0)


@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "llama4_text"])
def test_a_window_left_out_of_the_mask_is_noticed(family, tmp_path, monkeypatch):
    recipe, model, tokenizer = starting_model(family, tmp_path)
    encoder = PromptEncoder(tokenizer, recipe.prompt_format)
    layout = lay_out(METHODS["rim"], EXAMPLES[2], recipe.stages[1], encoder)
    assert readout_error(model, layout, "parallel") < 1e-5
    monkeypatch.setattr(masks, "layer_windows", lambda config: {"full_attention": None})
    assert readout_error(model, layout, "parallel") > 0.01


# flex attention uncompiled, which is how a CPU runs it: torch advises against it.
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
# transformers 5.23 passes a flag that torch 2.13 will drop.
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")
@pytest.mark.parametrize("family", WINDOWED)
def test_flex_attention_equals_the_familys_own_beyond_the_window(family, tmp_path, monkeypatch):
    """Losses of packed rows, and answers over a cache, all past the window."""
    recipe, own, tokenizer = starting_model(family, tmp_path)
    flex_settings = recipe.model.model_copy(update={"attention": "flex_attention"})
    flex, _ = load_base(flex_settings, recipe.prompt_format, (), 0)
    flex.load_state_dict(own.state_dict())  # rows of new tokens are drawn
    encoder = PromptEncoder(tokenizer, recipe.prompt_format)
    layouts = [lay_out(METHODS["rim"], x, recipe.stages[0], encoder) for x in EXAMPLES]
    assert max(layout.max_position for layout in layouts) > 3 * families.WINDOW
    batch = collate(layouts, pack=True)
    weights_BR = torch.ones(3, max(x.num_readouts for x in layouts))

    def losses(model):
        with torch.no_grad():  # torch has no backward pass of it for CPUs
            return forward_readouts(model, batch, recipe.memory, weights_BR).nll_BR

    def answers(model):
        rows = generate(model, encoder, questions, blocks=3, max_new_tokens=4)
        return [answer.text for row in rows for answer in row]

    questions = [example.question for example in EXAMPLES]
    assert flex.config._attn_implementation == "flex_attention"
    expected = losses(own)
    with torch.compiler.set_stance("force_eager"):  # its compiler for CPUs fails in torch 2.13
        torch.testing.assert_close(losses(flex), expected, atol=1e-4, rtol=1e-4)
        assert answers(flex) == answers(own)
        monkeypatch.setattr(masks, "layer_windows", lambda config: {"full_attention": None})
        assert (losses(flex) - expected).abs().max() > 0.01, "the windows are what is tested"


@pytest.mark.parametrize("begin", [train, dry_run])
def test_training_with_flex_attention_on_a_cpu_is_refused(begin, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    recipe = families.recipe_of("llama", tmp_path, attention="flex_attention")
    with pytest.raises(ConfigError, match=r"trains on a GPU only.*model\.attention: sdpa"):
        begin(recipe, console=QUIET)


def test_a_window_counts_positions_not_columns():
    positions_BT = torch.tensor([[0, 1, 2, 3, 4, 2, 3]])  # a read-out behind a trunk of five
    segments_BT = torch.tensor([[0, 0, 0, 0, 0, 1, 1]])
    blocks_BT = torch.zeros_like(segments_BT)
    index = torch.arange(7)
    seen = {}
    for kind in ("sliding", "chunked"):
        rule = get_readout_mask_mod(
            segments_BT, blocks_BT, window=Window(2, kind), position_ids_BT=positions_BT
        )
        mask = rule(torch.tensor(0), torch.tensor(0), index[:, None], index[None])
        seen[kind] = [torch.nonzero(row)[:, 0].tolist() for row in mask]
    # Of one block with the trunk, so that only the window keeps the read-out from later columns.
    assert seen["sliding"][:5] == [[0], [0, 1], [1, 2], [2, 3], [3, 4]]
    assert seen["sliding"][5:] == [[1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]
    assert seen["chunked"] == [[0], [0, 1], [2], [2, 3], [4], [2, 3, 5], [2, 3, 5, 6]]


def test_samples_and_mixed_questions_are_right_on_a_model_with_a_state(tmp_path):
    recipe, model, tokenizer = starting_model("qwen3_5_text", tmp_path)
    encoder = PromptEncoder(tokenizer, recipe.prompt_format)
    questions = ["1+2=", "a longer question: 3+4-5=", "2+2="]
    options = {"max_new_tokens": 4, "sampling": Sampling(temperature=1.0, num_samples=2, seed=1)}
    done = []
    together = generate(
        model, encoder, questions, blocks=2, after="all", progress=done.append, **options
    )
    assert sum(done) == 3
    for question, row in zip(questions, together, strict=True):
        assert [g.after_block for g in row] == [1, 1, 2, 2]
        alone = generate(model, encoder, [question], blocks=2, after="all", batch_size=1, **options)
        assert [g.token_ids for g in row] == [g.token_ids for g in alone[0]]
    mixed = generate(model, encoder, questions, blocks=[0, 2, 1], max_new_tokens=4)
    assert [row[0].after_block for row in mixed] == [0, 2, 1]


def test_what_separate_readouts_cannot_express_is_refused(tmp_path):
    with pytest.raises(ValidationError, match=r"cannot express memory\.attention: bidirectional"):
        with_memory("separate", tmp_path, attention="bidirectional")
    with pytest.raises(ValidationError, match="readouts_see_question: false"):
        with_memory("separate", tmp_path, readouts_see_question=False)
    with pytest.raises(ValidationError, match="fed back"):
        with_memory("separate", tmp_path, passes=2)
    families.tiny_base("lfm2", tmp_path / "base")
    with pytest.raises(ConfigError, match=r"run separately .*kind conv.* cannot express memory"):
        train(with_memory("auto", tmp_path, attention="bidirectional"), console=QUIET)
    with pytest.raises(
        ConfigError, match=r"parallel is wrong for this model: no mask .* layers of kind conv"
    ):
        train(families.recipe_of("lfm2", tmp_path, readouts="parallel"), console=QUIET)
    assert not (tmp_path / "runs" / "lfm2").exists()


def with_memory(readouts, folder, **memory):
    recipe = families.recipe_of("lfm2", folder, readouts=readouts).model_dump()
    recipe["memory"] = MemoryConfig(blocks=families.BLOCKS, **memory).model_dump()
    return type(families.recipe_of("lfm2", folder)).model_validate(recipe)


@pytest.mark.parametrize("family", ["llama", "lfm2", "qwen3_next"])
def test_states_of_blocks_do_not_depend_on_batch_mates(family, tmp_path):
    recipe, model, tokenizer = starting_model(family, tmp_path)
    reasoner = Reasoner(model, PromptEncoder(tokenizer, recipe.prompt_format))
    beside = block_states(reasoner, ["1+2=", "1+2+3+4+5+6+7+8="], 2)[0]
    torch.testing.assert_close(beside, block_states(reasoner, ["1+2="], 2)[0])


#: Families that rotate in ways of their own: angles by kind of layer, parts of heads, other names.
UNKNOWN = {
    "gemma3",
    "gemma3_text",
    "gpt_neox",
    "llama4_text",
    "falcon",
    "qwen3_next",
    "qwen3_5_text",
}


@pytest.mark.parametrize(
    "family", [f for f in families.FAMILIES if f not in ("mamba", "gpt2", "gpt_neo", "opt")]
)
@torch.no_grad()
def test_keys_are_turned_as_the_family_turns_them_or_not_at_all(family, tmp_path):
    _, model, _ = starting_model(family, tmp_path)
    options = {"use_cache": True}
    ids, delta = torch.tensor([[5, 6, 7]]), torch.full((1, 3), 2)
    first = model(input_ids=ids, **options).past_key_values
    if "position_ids" in inspect.signature(model.forward).parameters:
        options["position_ids"] = torch.tensor([[2, 3, 4]])
    moved = model(input_ids=ids, **options).past_key_values
    for n, (own, other) in enumerate(zip(first.layers, moved.layers, strict=True)):
        if not isinstance(getattr(own, "keys", None), torch.Tensor):
            continue
        try:
            turned = turn_keys(model, own.keys.transpose(1, 2), delta, n).transpose(1, 2)
        except ConfigError as error:
            assert "in a way that is not known here" in str(error) and family in UNKNOWN
            continue
        torch.testing.assert_close(turned, other.keys, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("family", "left"), [("llama4_text", 3), ("lfm2", 1)])
def test_controls_that_a_family_has_none_of_cost_only_themselves(family, left, tmp_path):
    """Keys that turn in an unknown way cannot be moved; separate read-outs share no cache."""
    recipe, model, tokenizer = starting_model(family, tmp_path)
    reasoner = Reasoner(model, PromptEncoder(tokenizer, recipe.prompt_format))
    if family == "lfm2":
        prompt_format = recipe.prompt_format.model_copy(update={"readouts": "separate"})
        reasoner = Reasoner(model, PromptEncoder(tokenizer, prompt_format))
    with pytest.raises(ConfigError):
        run_controls(reasoner, EXAMPLES, max_new_tokens=2)
    refused: dict[str, str] = {}
    outcomes = run_controls(reasoner, EXAMPLES, max_new_tokens=2, refused=refused)
    names = [o.name for o in outcomes if o.group != "number of blocks"]
    assert len(names) == left and names[0] == "no blocks" and not set(names) & set(refused)
    assert len(names) + len(refused) == 5 and all(refused.values())
    if family == "lfm2":
        with pytest.raises(ConfigError, match="run separately"):
            Asking(reasoner, 2, ())  # what the protocols ask through


def test_sampling_takes_a_whole_temperature_and_no_blocks_can_be_changed(tmp_path):
    recipe, model, tokenizer = starting_model("llama", tmp_path)
    encoder = PromptEncoder(tokenizer, recipe.prompt_format)
    generate(model, encoder, ["1+2="], blocks=1, sampling=Sampling(temperature=1, num_samples=2))
    plain = generate(model, encoder, ["1+2="], blocks=0)
    assert generate(model, encoder, ["1+2="], blocks=0, between=zero()) == plain


def test_interventions_on_separate_readouts_are_refused(tmp_path):
    recipe, model, tokenizer = starting_model("lfm2", tmp_path)
    encoder = PromptEncoder(tokenizer, recipe.prompt_format)
    with pytest.raises(ConfigError, match=r"run separately.*an intervention needs a cache"):
        generate(model, encoder, ["1+2="], blocks=2, between=zero())


@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_a_model_whose_cache_is_wrong_is_refused(family, tmp_path, monkeypatch):
    recipe, model, _ = starting_model(family, tmp_path)
    forward = type(model).forward

    def forgetful(self, *args, past_key_values=None, **kwargs):
        return forward(self, *args, **kwargs)  # takes a cache and does not use it

    monkeypatch.setattr(type(model), "forward", forgetful)
    said = {"llama": "cannot be asked: decoding over a cache failed", "lfm2": "are wrong by"}
    with pytest.raises(ConfigError, match=said[family]):
        train(recipe, console=QUIET)


def test_an_attention_that_a_family_lacks_is_refused_with_the_one_it_has(tmp_path):
    families.tiny_base("mpt", tmp_path / "base")
    recipe = families.recipe_of("mpt", tmp_path, attention="sdpa")
    with pytest.raises(ConfigError, match=r"set model\.attention: eager"):
        load_base(recipe.model, recipe.prompt_format, (), 0)
