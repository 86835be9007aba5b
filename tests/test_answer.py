"""`rim answer`: the file of a job that was stopped, however, is that of one that never was."""

from __future__ import annotations

import errno
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm
from conftest import tiny_model
from export_models import make_run
from question_files import rows_of
from stub_server import Reply, event, stub
from test_cli import rim_command, rim_json

from rim.config import ConfigError
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.data.examples import DataError
from rim.deploy.answer.engines import LocalEngine, RayEngine, ServerEngine
from rim.deploy.answer.job import Shard, answer_file
from rim.deploy.serve import Client
from rim.infer.reasoner import Reasoner

#: A job without a model: its engine takes as long as it is told to.
ECHO = """
import sys, time
from pathlib import Path
from rim.deploy.answer.job import answer_file

class Echo:
    chunk_size = 7
    def describe(self):
        return {"engine": "echo"}
    def answer(self, chunks):
        for chunk in chunks:
            time.sleep(0.002)
            yield [{"answer": text[::-1], "text": "x" * 300} for text in chunk]

print("ready", flush=True)
answer_file(Path(sys.argv[1]), Path(sys.argv[2]), Echo(), resume=True)
"""


class Echo:
    chunk_size = 3

    def describe(self):
        return {"engine": "echo"}

    def answer(self, chunks):
        for chunk in chunks:
            yield [{"answer": text[::-1]} for text in chunk]


def questions_file(folder: Path, count: int) -> Path:
    path = folder / "in.jsonl"
    rows = [{"question": f"What is {i} and {i * i % 97}?", "id": f"q{i}"} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture(scope="module")
def run(plain_tokenizer, tmp_path_factory) -> Path:
    return make_run("gpt2", plain_tokenizer, tmp_path_factory.mktemp("run"))


@pytest.fixture
def reasoner(tokenizer, prompt_format) -> Reasoner:
    add_memory_tokens(tokenizer, prompt_format.memory)
    return Reasoner(tiny_model("llama", tokenizer), PromptEncoder(tokenizer, prompt_format))


@pytest.mark.slow
def test_a_job_killed_at_random_moments_loses_and_repeats_no_line(tmp_path):
    questions = questions_file(tmp_path, 2000)
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", ECHO, str(questions), str(out)]
    draw = random.Random(0)
    kills = 0
    while True:
        process = warm.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.uniform(0.0, 0.15))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kills += 1
        if kills == 20:
            warm.run(command, check=True)
            break
    process.stdout.close()
    assert kills >= 5
    plain = tmp_path / "plain.jsonl"
    warm.run([*command[:-1], str(plain)], check=True)
    assert out.read_bytes() == plain.read_bytes()
    assert [row["line"] for row in rows_of(out)] == list(range(1, 2001))


@pytest.mark.slow
def test_a_file_cut_anywhere_is_continued_byte_for_byte(tmp_path, reasoner):
    """Every state that a kill or a full disk can leave: a beginning of the whole file."""
    questions = questions_file(tmp_path, 40)
    engine = LocalEngine(reasoner, tmp_path, max_new_tokens=6, batch_size=2)
    engine.describe = lambda: {"model": "tiny"}  # type: ignore[method-assign]
    out, plain = tmp_path / "out.jsonl", tmp_path / "plain.jsonl"
    answer_file(questions, plain, engine)
    whole = plain.read_bytes()
    Path(f"{out}.job.json").write_bytes(Path(f"{plain}.job.json").read_bytes())
    draw = random.Random(1)
    for place in [0, 1, len(whole) - 1, len(whole), *draw.sample(range(len(whole)), 8)]:
        out.write_bytes(whole[:place])
        done = answer_file(questions, out, engine, resume=True)
        assert out.read_bytes() == whole
        assert done["earlier"] == whole[:place].count(b"\n")
        assert done["lines"] == 40


@pytest.mark.slow
def test_answers_of_a_file_are_those_of_a_plain_loop(tmp_path, run):
    questions = questions_file(tmp_path, 20)
    out = tmp_path / "out.jsonl"
    summary = rim_json("answer", run, questions, "--out", out, "--max-new-tokens", 5)
    assert (summary["lines"], summary["errors"], summary["earlier"]) == (20, 0, 0)
    from rim import load

    reasoner = load(run, device="cpu")
    for row, line in zip(rows_of(out), rows_of(questions), strict=True):
        alone = reasoner.ask(line["question"], max_new_tokens=5)
        assert (row["id"], row["answer"], row["text"]) == (line["id"], alone.answer, alone.text)
        assert row["logprob"] == pytest.approx(alone.logprob, abs=1e-3)
    with_resume = rim_command("answer", run, questions, "--out", out, "--max-new-tokens", 5, code=2)
    assert "--resume" in with_resume
    rim_command("answer", run, questions, "--out", out, "--max-new-tokens", 5, "--resume")
    mixed = rim_command("answer", run, questions, "--out", out, "--resume", code=2)
    assert "another max_new_tokens (5, now 64)" in " ".join(mixed.split())


def test_shards_together_are_the_whole(tmp_path):
    questions = questions_file(tmp_path, 23)
    answer_file(questions, tmp_path / "whole", Echo())
    parts = []
    for index in (1, 2, 3):
        answer_file(questions, tmp_path / f"{index}", Echo(), shard=Shard.parse(f"{index}/3"))
        parts += rows_of(tmp_path / f"{index}")
    assert sorted(parts, key=lambda row: row["line"]) == rows_of(tmp_path / "whole")
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(ConfigError, match="--shard"):
            Shard.parse(wrong)


def test_lines_without_a_question_say_why_and_keep_their_place(tmp_path, reasoner):
    lines = [
        b'{"question": "2 + 2?"}',
        b"",
        b'{"question": ""}',
        b'{"question": 7}',
        b"not json",
        b'{"question": "\xff"}',
        b'{"question": "\\ud800"}',
        b"[" * 100_000,
        b'{"question": "a", "question": "b"}',
        json.dumps({"question": "long " * 5000}).encode(),
        '{"question": "Größe\u2028und \U0001f600?"}'.encode(),
    ]
    questions = tmp_path / "in.jsonl"
    questions.write_bytes(b"\n".join(lines))
    engine = LocalEngine(reasoner, tmp_path, max_new_tokens=4)
    engine.describe = dict  # type: ignore[method-assign]
    summary = answer_file(questions, tmp_path / "out", engine)
    rows = rows_of(tmp_path / "out")
    assert [row["line"] for row in rows] == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert [row["line"] for row in rows if "error" not in row] == [1, 11]
    assert summary["errors"] == 8
    reasons = {row["line"]: row["error"] for row in rows if "error" in row}
    assert "half a character" in reasons[7]
    assert "given twice" in reasons[9]
    assert "too long" in reasons[10]


def test_an_output_that_is_not_this_jobs_is_left_alone(tmp_path):
    questions = questions_file(tmp_path, 9)
    out = tmp_path / "out"
    answer_file(questions, out, Echo())
    whole = out.read_bytes()
    rows = whole.splitlines(keepends=True)
    for content, message in [
        (b"".join(rows[:2] + rows[3:]), "answers line 4 of the input, where 3 is next"),
        (rows[0] + rows[0], "answers line 1 of the input, where 2 is next"),
        (rows[0] + b"{}\n", "line 2: not a line of rim answer"),
        (whole + rows[-1], "where nothing is next"),
    ]:
        out.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            answer_file(questions, out, Echo(), resume=True)
        assert out.read_bytes() == content
    out.write_bytes(whole)
    with pytest.raises(ConfigError, match="exists; continue it with --resume"):
        answer_file(questions, out, Echo())
    with pytest.raises(ConfigError, match="another shard"):
        answer_file(questions, out, Echo(), shard=Shard(1, 2), resume=True)
    Path(f"{out}.job.json").unlink()
    with pytest.raises(ConfigError, match="not made by rim answer"):
        answer_file(questions, out, Echo(), resume=True)
    with pytest.raises(ConfigError, match="is the input"):
        answer_file(questions, questions, Echo(), resume=True)


def test_a_job_without_an_answer_leaves_nothing_in_the_way(tmp_path):
    questions, out = questions_file(tmp_path, 9), tmp_path / "new" / "out"

    class Gone(Echo):
        def answer(self, chunks):
            raise ConfigError("nobody listens")

    with pytest.raises(ConfigError, match="nobody listens"):
        answer_file(questions, out, Gone())
    assert not list(out.parent.iterdir())
    answer_file(questions, out, Echo())


def test_questions_may_have_another_name(tmp_path):
    questions, out = tmp_path / "q.jsonl", tmp_path / "out"
    questions.write_text('{"ask": "1+1", "id": 7}\n{"ask": "2+2"}\n{"question": "3"}\n')
    with pytest.raises(DataError, match=r"in the first 2 lines.*'question' is missing.*--column"):
        question = questions.read_text().splitlines(keepends=True)
        questions.write_text("".join(question[:2]))
        answer_file(questions, out, Echo())
    assert not out.exists()
    questions.write_text("".join(question))
    answer_file(questions, out, Echo(), field="ask")
    rows = rows_of(out)
    assert [("answer" in row, row.get("id")) for row in rows] == [
        (True, 7),
        (True, None),
        (False, None),
    ]
    with pytest.raises(ConfigError, match="another field"):
        answer_file(questions, out, Echo(), field="question", resume=True)


def test_two_jobs_do_not_write_one_file(tmp_path, monkeypatch):
    questions = questions_file(tmp_path, 9)

    class Nested(Echo):
        def answer(self, chunks):
            with pytest.raises(ConfigError, match="another job is writing"):
                answer_file(questions, tmp_path / "out", Echo(), resume=True)
            yield from super().answer(chunks)

    fcntl = pytest.importorskip("fcntl")
    answer_file(questions, tmp_path / "out", Nested())
    assert len(rows_of(tmp_path / "out")) == 9

    def none(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)  # a shared file system may have none
    answer_file(questions, tmp_path / "unlocked", Echo())
    assert len(rows_of(tmp_path / "unlocked")) == 9


@pytest.mark.slow
def test_a_server_answers_in_order_through_many_threads(tmp_path):
    questions = questions_file(tmp_path, 60)
    with stub(Reply()) as server:
        out = tmp_path / "out"
        summary = rim_json("answer", "--server", server.url, questions, "--out", out)
    assert [row["line"] for row in rows_of(out)] == list(range(1, 61))
    assert {row["answer"] for row in rows_of(out)} == {"7"}
    assert summary["lines"] == len(server.bodies) == 60


def test_a_server_that_is_busy_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.002)
    questions = questions_file(tmp_path, 20)
    good, busy = [event("#### 7"), event(None, "stop")], ['{"error": "busy"}']

    class Sometimes(Reply):
        calls = 0

        @property
        def status(self):
            Sometimes.calls += 1
            return 503 if Sometimes.calls % 2 else 200

        @status.setter
        def status(self, value): ...

        @property
        def pieces(self):
            return busy if Sometimes.calls % 2 else good

        @pieces.setter
        def pieces(self, value): ...

    with stub(Sometimes()) as server:
        engine = ServerEngine(Client(server.url, retries=4), concurrency=1)
        summary = answer_file(questions, tmp_path / "out", engine)
    assert (summary["lines"], summary["errors"], len(server.bodies)) == (20, 0, 40)


@pytest.mark.parametrize(
    ("status", "message", "count"),
    [
        (400, "refuses every question", 20),
        (400, "refuses every question", 3),
        (500, "fails at every question", 20),
        (402, "answered 402", 20),
        (301, "answered 301", 20),
    ],
)
def test_a_server_that_answers_nobody_ends_the_job(tmp_path, status, message, count):
    questions = questions_file(tmp_path, count)
    reply = Reply(pieces=['{"error": "no such thing"}'], status=status, kind="application/json")
    out = tmp_path / "out"
    with stub(reply) as server:
        engine = ServerEngine(Client(server.url), concurrency=2)
        with pytest.raises(ConfigError, match=message):
            answer_file(questions, out, engine)
    assert not out.exists()
    with pytest.raises(ConfigError, match="no server at"):
        answer_file(questions, tmp_path / "other", ServerEngine(Client(server.url)))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("count", [3, 20])
def test_questions_that_are_refused_are_rows_where_a_short_one_is_answered(tmp_path, count):
    questions, out = questions_file(tmp_path, count), tmp_path / "out"
    refusal = Reply(pieces=['{"error": "too long"}'], status=400, kind="application/json")
    with stub(*min(count, 8) * [refusal], Reply()) as server:
        engine = ServerEngine(Client(server.url), concurrency=1)
        assert answer_file(questions, out, engine)["errors"] == min(count, 8)
        # After the eighth refusal, or the last, it asks a short one: no line of the output.
        assert len(server.bodies) == count + 1
    assert len(rows_of(out)) == count
    assert "too long" in rows_of(out)[0]["error"]


OUT_OF_MEMORY = ['data: {"error": {"message": "out of memory"}}\n\n']


@pytest.mark.parametrize("trouble", [OUT_OF_MEMORY, ['data: {"error": "out of "memory""}\n\n']])
def test_an_error_within_a_stream_is_of_its_question_alone(tmp_path, trouble):
    questions, out = questions_file(tmp_path, 20), tmp_path / "out"
    with stub(Reply(), Reply(trouble), Reply()) as server:
        engine = ServerEngine(Client(server.url), concurrency=1)
        assert answer_file(questions, out, engine)["errors"] == 1
    assert [row["line"] for row in rows_of(out) if "error" in row] == [2]
    with stub(Reply(trouble)) as server:
        engine = ServerEngine(Client(server.url), concurrency=1)
        with pytest.raises(ConfigError, match=r"fails at every question: .*out of"):
            answer_file(questions, tmp_path / "broken", engine)


def test_a_last_question_that_fails_ends_no_resumed_job(tmp_path):
    questions, out = questions_file(tmp_path, 3), tmp_path / "out"
    with stub(Reply(), Reply(), Reply(OUT_OF_MEMORY)) as server:
        engine = ServerEngine(Client(server.url), concurrency=1)
        assert answer_file(questions, out, engine)["errors"] == 1
        whole = out.read_bytes()
        out.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
        again = ServerEngine(Client(server.url), concurrency=1)
        answer_file(questions, out, again, resume=True)
        assert out.read_bytes() == whole
    changed = questions.read_bytes()
    questions.write_bytes(changed.replace(b"1", b"2"))  # as many bytes
    with pytest.raises(ConfigError, match="begun with another input_sha256"):
        answer_file(questions, out, ServerEngine(Client(server.url)), resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 40])
def test_a_server_that_answers_nothing_writes_nothing_whatever_stands_between(tmp_path, count):
    questions = questions_file(tmp_path, count)
    lines = questions.read_text().splitlines(keepends=True)
    questions.write_text("".join(line + "{broken\n" for line in lines))
    out = tmp_path / "out"
    with stub(Reply(OUT_OF_MEMORY)) as server:
        engine = ServerEngine(Client(server.url), concurrency=1)
        with pytest.raises(ConfigError, match="fails at every question"):
            answer_file(questions, out, engine)
    assert not out.exists()
    with stub(Reply()) as server:
        again = answer_file(questions, out, ServerEngine(Client(server.url)), resume=True)
    assert (again["lines"], again["errors"]) == (2 * count, count)


@pytest.mark.slow
def test_ray_gives_the_file_of_one_process(tmp_path, run):
    pytest.importorskip("ray", reason="needs the ray extra")
    questions = questions_file(tmp_path, 40)
    local, out = tmp_path / "local", tmp_path / "ray"
    rim_command("answer", run, questions, "--out", local, "--max-new-tokens", 4, "--batch-size", 1)
    engine = RayEngine(run, workers=2, batch_size=1, max_new_tokens=4)
    summary = answer_file(questions, out, engine)
    assert summary["lines"] == 40
    assert out.read_bytes() == local.read_bytes()
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    answer_file(questions, out, engine, resume=True)
    assert out.read_bytes() == whole
