"""Latency: exact lengths go in and come out, ratios are those of the same repeat."""

from __future__ import annotations

import json
import random

import pytest
import torch
from conftest import tiny_model
from test_cli import plain_console, rim_command  # noqa: F401
from typer.testing import CliRunner

import rim.study.bench.measure as measure
from rim.cli import app
from rim.config import ConfigError, MemoryConfig, ModelConfig, PromptFormat, ScratchConfig
from rim.infer.decode import Generated, generate
from rim.infer.sampling import Sampling
from rim.methods import METHODS
from rim.models.loading import save_trained
from rim.report.latency import latency_tables
from rim.study.bench.measure import run_benchmark
from rim.study.bench.settings import FULL_GRID, BenchmarkSettings
from rim.study.bench.subject import TimedModel, scratch_subject, trained_subject
from rim.study.bench.timing import memory_kind, peak_memory, spread, timed

TINY = ScratchConfig(family="gpt2", layers=1, width=16, heads=2, max_positions=128, vocab_size=300)
CPU = torch.device("cpu")


@pytest.fixture
def subject() -> TimedModel:
    return scratch_subject("tiny", TINY, "cpu")


def settings(**changes) -> BenchmarkSettings:
    sizes = {"question_tokens": (10,), "blocks": (2,), "answer_tokens": 3, "step_tokens": 5}
    return BenchmarkSettings(**(sizes | {"repeats": 2, "warmup": 1} | changes))


def test_every_method_is_timed():
    assert set(FULL_GRID["methods"]) == set(METHODS)


def test_the_model_sees_exactly_the_stated_numbers_of_tokens(subject, monkeypatch):
    fed: list[tuple[int, int]] = []
    forward = subject.model.forward
    monkeypatch.setattr(
        subject.model,
        "forward",
        lambda **inputs: fed.append(tuple(inputs["input_ids"].shape)) or forward(**inputs),
    )
    chosen = settings(batch_sizes=(3,), methods=("direct", "cot", "rim"), repeats=1)
    rows = {row["method"]: row for row in run_benchmark(subject, chosen)["rows"]}
    assert [rows[m]["prompt_tokens"] for m in ("direct", "cot", "rim")] == [10, 10, 18]

    def calls(prompt: int, tokens: int) -> list[tuple[int, int]]:
        return [(3, prompt), *[(3, 1)] * (tokens - 1)]

    warmup = calls(10, 3) + calls(10, 8) + calls(18, 3)
    prefills = calls(10, 1) * 2 + calls(18, 1)
    first_after_steps = calls(10, 6)
    assert fed == warmup + prefills + first_after_steps + warmup


def test_prompts_are_random_ordinary_tokens(subject):
    (direct,) = measure.variants(subject, settings(methods=("direct",)), 50)
    ids = direct.encoder.prompt_ids("a", 0)
    assert len(ids) == 50
    assert ids == direct.encoder.prompt_ids("a", 0) != direct.encoder.prompt_ids("b", 0)
    assert not set(ids) & {*direct.encoder.memory_ids, direct.encoder.stop_id}


def test_a_forbidden_stop_token_makes_every_answer_as_long_as_it_may_be(encoder):
    model = tiny_model("gpt2", encoder.tokenizer)
    # A model that says nothing but the stop token.
    bias = torch.zeros(model.lm_head.weight.shape[0])
    bias[encoder.stop_id] = 1e4
    model.lm_head.bias = torch.nn.Parameter(bias)
    options = {"blocks": 2, "max_new_tokens": 6}
    ((free,),) = generate(model, encoder, ["a?"], **options)
    assert (free.token_ids, free.finished) == ((), True)
    ((held,),) = generate(model, encoder, ["a?"], sampling=Sampling(stop="forbidden"), **options)
    assert len(held.token_ids) == 6
    assert encoder.stop_id not in held.token_ids
    assert not held.finished


class FakeMachine:
    """A clock that a fake decoder moves: 1 ms a prompt token, 10 ms a further token, times how busy
    the machine is at that call.
    """

    def __init__(self):
        self.now = 0.0
        self.random = random.Random(0)
        self.milliseconds: dict[tuple[str, int], list[float]] = {}  # by method and tokens written

    def clock(self) -> float:
        return self.now

    def generate(self, model, encoder, questions, *, blocks, max_new_tokens, **_):
        prompt = len(encoder.prompt_ids(questions[0], blocks))
        taken = self.random.uniform(1, 20) * (prompt + 10 * (max_new_tokens - 1))
        key = (encoder.format.method, max_new_tokens)
        self.milliseconds.setdefault(key, []).append(taken)
        self.now += taken / 1000
        return [[Generated(0, "", (1,) * max_new_tokens, 0.0, False)] for _ in questions]


def test_ratios_are_formed_within_a_repeat_and_parts_add_up(subject, monkeypatch):
    machine = FakeMachine()
    monkeypatch.setattr(measure, "generate", machine.generate)
    chosen = settings(methods=("direct", "cot", "rim"), warmup=2, repeats=5)
    rows = run_benchmark(subject, chosen, clock=machine.clock)["rows"]

    def taken(method: str, tokens: int) -> list[float]:
        return machine.milliseconds[method, tokens][-5:]  # without the warm-up

    def spread_of(values) -> dict[str, float]:
        return {k: pytest.approx(v, abs=1e-3) for k, v in spread(list(values)).items()}

    for row, (method, steps) in zip(rows, {"direct": 0, "cot": 5, "rim": 0}.items(), strict=True):
        prefill, first, whole = (taken(method, n) for n in (1, steps + 1, steps + 3))
        assert row["prefill_ms"] == spread_of(prefill)
        assert row["ttft_ms"] == spread_of(first)
        assert row["answer_ms"] == spread_of(whole)
        decode = [(w - p) / (steps + 2) for w, p in zip(whole, prefill, strict=True)]
        assert row["decode_ms_per_token"] == spread_of(decode)
        for name, own, of_direct in (("ttft", first, 1), ("answer", whole, 3)):
            pairs = zip(own, taken("direct", of_direct), strict=True)
            assert row[f"{name}_to_direct"] == spread_of(a / b for a, b in pairs)
    # A ratio of medians would be another number.
    rim, direct = rows[2]["ttft_ms"]["median"], rows[0]["ttft_ms"]["median"]
    assert rows[2]["ttft_to_direct"]["median"] != pytest.approx(rim / direct, rel=0.01)


def test_without_direct_there_is_no_ratio(subject):
    (row,) = run_benchmark(subject, settings(methods=("rim",)))["rows"]
    assert row["ttft_to_direct"] is None
    (table,) = latency_tables({"rows": [row]})
    assert list(table.columns[2].cells) == ["-"]


@pytest.mark.slow
def test_the_grid_has_every_cell_and_every_k_once(subject):
    sizes = {"batch_sizes": (1, 2), "question_tokens": (4, 8), "blocks": (1, 3)}
    chosen = settings(**sizes, methods=tuple(METHODS), repeats=1)
    progress: list[str] = []
    result = run_benchmark(subject, chosen, progress.append)
    rows = [(r["question_tokens"], r["batch_size"], r["method"], r["blocks"])
            for r in result["rows"]]  # fmt: skip
    assert len(rows) == len(set(rows))
    swept = sum(method.bench.blocks == "swept" for method in METHODS.values())
    assert len(rows) == 4 * (len(METHODS) + swept)
    assert {r[3] for r in rows if r[2] == "rim"} == {1, 3}
    assert len(progress) == 4 * 2
    assert len(latency_tables(result)) == 4
    assert set(FULL_GRID) <= set(BenchmarkSettings.model_fields)


def test_what_does_not_fit_the_positions_is_refused_before_anything_is_timed(subject):
    progress: list[str] = []
    with pytest.raises(
        ConfigError, match="cot with a question of 121 tokens and 0 blocks needs 129"
    ):
        run_benchmark(
            subject,
            settings(methods=("cot",), question_tokens=(10, 121)),
            progress.append,
        )
    assert not progress


def test_the_model_has_the_sizes_it_says(subject):
    assert subject.model.lm_head.weight.shape == (300, 16)
    assert subject.description["vocabulary"] == 300
    assert subject.description["weights"] == "random"
    half = scratch_subject("tiny", TINY, "cpu", "bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert run_benchmark(half, settings(repeats=1))["rows"]


def test_a_trained_model_is_timed_with_its_own_blocks(encoder, tmp_path):
    memory = MemoryConfig(blocks=2, tokens=5)
    trained_format = PromptFormat(memory=memory)
    scratch = ModelConfig(scratch=ScratchConfig(), tuning="full")
    model = tiny_model("llama", encoder.tokenizer)
    save_trained(model, encoder.tokenizer, trained_format, scratch, tmp_path)
    subject = trained_subject(tmp_path, "cpu")
    assert subject.description["weights"] == "trained"
    (row,) = run_benchmark(subject, settings(methods=("rim",), repeats=1))["rows"]
    assert row["prompt_tokens"] == 10 + 2 * 7


def test_timing_waits_for_the_device_on_both_sides(monkeypatch):
    import rim.study.bench.timing

    events: list[str] = []
    monkeypatch.setattr(rim.study.bench.timing, "synchronise", lambda device: events.append("wait"))
    ticks = iter((1.0, 1.25))

    def clock() -> float:
        events.append("clock")
        return next(ticks)

    assert timed(lambda: events.append("call"), CPU, clock) == (250.0, None)
    assert events == ["wait", "clock", "call", "wait", "clock"]


def test_spread_is_median_and_quartiles():
    assert spread([5, 1, 2, 4, 3]) == {"median": 3, "low": 2, "high": 4}
    assert spread([7]) == {"median": 7, "low": 7, "high": 7}


def test_peak_memory_sees_what_a_call_held_and_gave_back():
    if memory_kind(CPU) is None:
        assert peak_memory(lambda: None, CPU) is None
        return
    small = peak_memory(lambda: torch.ones(1), CPU)
    large = peak_memory(lambda: torch.ones(2**26), CPU)  # 256 MiB
    again = peak_memory(lambda: torch.ones(1), CPU)
    assert large - small > 200
    assert large - again > 200


TINY_MODEL = "family=llama,layers=1,width=16,heads=2,vocab_size=300"


def test_the_command_prints_a_table_or_one_json_document(tmp_path):
    options = "--device cpu --question-tokens 5,9 --blocks 1,2 --answer-tokens 2 --step-tokens 2 "
    options += f"--repeats 2 --warmup 1 --methods direct,rim --model {TINY_MODEL} --out"
    arguments = ["bench", *options.split(), str(tmp_path / "b.json")]
    output = CliRunner().invoke(app, arguments).stdout
    lines = output.strip().splitlines()
    result = json.loads((tmp_path / "b.json").read_text())
    assert len(result["rows"]) == 2 * 3
    assert {"packages", "git_commit", "torch_threads"} <= result["environment"].keys()
    assert "random weights" in output
    assert sum(line.startswith("rim K=2") for line in lines) == 2
    printed = CliRunner().invoke(app, [*arguments, "--json"]).stdout
    assert json.loads(printed) == json.loads((tmp_path / "b.json").read_text())
    assert json.loads(printed)["rows"][0].keys() == result["rows"][0].keys()


def decoder_calls(model, call) -> int:
    """Passes through the layers, with or without the vocabulary head behind them."""
    calls = []
    hook = model.base_model.register_forward_hook(lambda *_: calls.append(1))
    try:
        call()
    finally:
        hook.remove()
    return len(calls)


@pytest.mark.parametrize(
    ("method", "passes"),
    [("direct", 1), ("pause", 1), ("rim", 1), ("coconut", 6 + 1), ("codi", 6 + 1), ("lotus", 6)],
)
def test_the_first_token_takes_as_many_passes_as_the_method_has(subject, method, passes):
    (row,) = measure.variants(subject, settings(methods=(method,)), 10)
    options = {"blocks": row.blocks, "max_new_tokens": 1}
    asked = ["a", "b"]
    assert passes == decoder_calls(
        row.model, lambda: generate(row.model, row.encoder, asked, **options)
    )


@pytest.mark.parametrize(
    ("method", "blocks"),
    [
        ("lotus", {"tokens": 3, "framing": "once", "passes": 3}),
        ("rim", {"passes": 2}),
        ("rim", {"attention": "bidirectional"}),
        ("rim", {"readouts_see_question": False}),
    ],
)
def test_every_method_is_timed_on_a_trained_variant(encoder, tmp_path, method, blocks):
    trained_format = PromptFormat(method=method, memory=MemoryConfig(blocks=2, **blocks))
    scratch = ModelConfig(scratch=ScratchConfig(), tuning="full")
    model = tiny_model("gpt2", encoder.tokenizer)
    save_trained(model, encoder.tokenizer, trained_format, scratch, tmp_path)
    subject = trained_subject(tmp_path, "cpu")
    chosen = settings(methods=tuple(METHODS), repeats=1)
    assert len(run_benchmark(subject, chosen)["rows"]) == len(METHODS)
    rows = {row.method: row for row in measure.variants(subject, chosen, 10)}
    # Its own method as it was trained, the others as they are by themselves.
    own = rows[method].encoder.format.memory
    assert rows["direct"].encoder.format.memory.passes == 1
    if method == "rim":
        assert blocks.items() <= own.model_dump().items()
    else:
        assert own.passes == METHODS["lotus"].bench.memory["passes"]
        assert rows["rim"].prompt_tokens == 10 + 2 * (3 + 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "gpt3"], "neither a preset"),
        (["--model", "layers=two"], "--model layers"),
        (["--model", "depth=2"], "--model depth"),
        (["--methods", "rim,magic"], "--methods"),
        (["--blocks", "0"], "--blocks"),
        (["--batch-sizes", ","], "--batch-sizes takes"),
        (["--model", TINY_MODEL, "--device", "nowhere"], "'nowhere'"),
    ],
)
def test_bad_options_end_in_one_sentence(arguments, message):
    output = rim_command("bench", *arguments, code=2)
    assert message in output
    assert any(line.startswith("Error: ") for line in output.splitlines())
