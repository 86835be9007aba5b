"""`rim serve` with a real engine, asked by all that it prints, and its page in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import browser
import pytest
from browser import Browser
from export_models import make_run
from running_server import is_up
from servers import TOKENS, Served, needs_engine
from stub_server import Reply, event, stub
from test_cli import plain_console, rim_command  # noqa: F401

from rim.deploy.serve import page_url
from rim.infer.reasoner import load

pytestmark = needs_engine
needs_browser = pytest.mark.skipif(
    browser.PROGRAM is None, reason="Chromium is missing (Debian: apt-get install chromium)"
)
BLOCKS = 2
QUESTION = "How many apples are 3 and 4?"
HOSTILE = "<img src=x onerror=\"document.title='caught'\"> & <b>3</b>"
TEXT = "document.querySelector('.text').textContent"


@pytest.fixture(scope="module")
def command(plain_tokenizer, tmp_path_factory) -> Iterator[tuple[Served, str]]:
    """`rim serve RUN --page --blocks 2` as a person starts it: what it serves, and what it says."""
    folder = tmp_path_factory.mktemp("run")
    run = make_run("gpt2", plain_tokenizer, folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    arguments = ["serve", str(run), "--engine", "transformers", "--port", port, "--page"]
    arguments += ["--blocks", str(BLOCKS), "--", "--device", "cpu"]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", "from rim.cli import app; app()", *arguments],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
    url = f"http://127.0.0.1:{port}"
    up = is_up(url, process)
    shown = (folder / "said").read_text()
    try:
        assert up and f"Starting transformers on {url};" in shown, shown
        yield Served(url, load(run, device="cpu"), str(run / "exported")), shown
    finally:
        process.send_signal(signal.SIGINT)  # as Ctrl-C does
        process.wait(timeout=30)


def expected(served: Served, question: str, blocks: int, tokens: int = 64) -> str:
    return served.reasoner.ask(question, blocks=blocks, max_new_tokens=tokens).text


def test_the_chosen_blocks_are_the_servers_default(command):
    served, _ = command
    assert served.answer(QUESTION) == expected(served, QUESTION, BLOCKS, TOKENS)
    assert expected(served, QUESTION, BLOCKS) != expected(served, QUESTION, 3)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_the_printed_curl_line_works_as_printed(command):
    served, shown = command
    (line,) = re.findall(r"^  (curl .*)$", shown, re.MULTILINE)
    result = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    answer = json.loads(result.stdout)["choices"][0]["message"]["content"]
    assert answer == expected(served, "3+4-5=", BLOCKS)


def test_the_printed_python_works_as_printed(command, capsys):
    served, shown = command
    (code,) = re.findall(r"(^  from openai.*?content\))$", shown, re.MULTILINE | re.DOTALL)
    exec(compile(re.sub("^  ", "", code, flags=re.MULTILINE), "printed", "exec"), {})
    assert capsys.readouterr().out == expected(served, "3+4-5=", BLOCKS) + "\n"


def test_rim_ask_gives_the_runs_answers(command):
    served, _ = command
    asked = ["ask", "--server", served.url, QUESTION, "--blocks", "0,2,3,8", "--json"]
    answers = json.loads(rim_command(*asked))
    ours = [served.reasoner.ask(QUESTION, blocks=count) for count in (0, 2, 3, 8)]
    for name in ("text", "answer", "finished", "num_tokens"):
        assert [a[name] for a in answers] == [getattr(o, name) for o in ours], name
    assert all(0 < a["first_ms"] <= a["answer_ms"] for a in answers)
    assert "answered 500" in rim_command(*asked[:4], "--blocks", "65", code=2)


@needs_browser
def test_the_page_shows_the_runs_answers(command, tmp_path):
    served, shown = command
    (printed,) = re.findall(r"^Web page: (\S+)$", shown, re.MULTILINE)
    trained = served.reasoner.trained_blocks
    assert printed == page_url(
        served.url, blocks=sorted({0, BLOCKS}), most_blocks=64, trained_blocks=trained
    )
    with Browser(tmp_path / "profile") as page:
        page.open(page_url(served.url, question=QUESTION, blocks=(0, 2, 8), run=True))
        page.wait_for("document.body.dataset.state === 'done'")
        for count in (0, 2, 8):
            text = page.evaluate(
                f"document.querySelector('[data-blocks=\"{count}\"] .text').textContent"
            )
            assert text == expected(served, QUESTION, count)
        times = page.evaluate("[...document.querySelectorAll('.timing')].map((t) => t.innerText)")
        assert len(times) == 3 and all(re.match(r"\d+ \+ \d+ ms", t) for t in times)
        page.wait_for("document.getElementById('reach').textContent === 'reachable'")


@needs_browser
def test_the_page_is_used_by_keyboard_on_a_narrow_screen(command, tmp_path):
    served, _ = command
    with Browser(tmp_path / "profile", width=390) as page:
        page.open(page_url(served.url, blocks=(3,)))
        page.wait_for("document.activeElement.id === 'question'")  # a page is there to ask
        page.type(QUESTION)
        page.key("Enter", 13, "\r")
        page.wait_for("document.body.dataset.state === 'done'")
        assert page.evaluate(TEXT) == expected(served, QUESTION, 3)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_text_of_a_server_is_shown_as_text(tmp_path):
    for reply in (
        Reply([event(HOSTILE), event(None, "stop")]),
        Reply([json.dumps({"error": HOSTILE})], 400, "application/json"),
    ):
        with stub(reply) as server, Browser(tmp_path / "profile") as page:
            page.open(page_url(server.url, question="q", blocks=(1,), run=True))
            page.wait_for("['done', 'failed'].includes(document.body.dataset.state)")
            assert HOSTILE in page.evaluate(TEXT)
            assert page.evaluate("document.images.length") == 0
            assert page.evaluate("document.title") == "Memory blocks"


@needs_browser
def test_answers_appear_as_they_come_and_can_be_stopped(tmp_path):
    slow = Reply([event("one "), event("two "), *[event("more ")] * 200], pause=0.1)
    with stub(slow) as server, Browser(tmp_path / "profile") as page:
        # A first answer that is not shown would take as long: this server was asked before.
        page.open(page_url(server.url, question="q", blocks=(1, 4)))
        page.evaluate(f"warm.add({server.url!r}), ask([1, 4]), 0")
        page.wait_for(f"{TEXT}.startsWith('one two ')")
        assert page.evaluate("document.body.dataset.state") == "running"
        page.key("Escape", 27)
        page.wait_for("document.body.dataset.state === 'stopped'", seconds=5)
        assert page.evaluate(TEXT).startswith("one two ")
        # The second question was never asked.
        assert [b["chat_template_kwargs"]["blocks"] for b in server.bodies] == [1]


@needs_browser
def test_a_stream_that_breaks_is_told_as_such(tmp_path):
    broken = Reply([event("one ")], promised=9999)
    with stub(broken) as server, Browser(tmp_path / "profile") as page:
        page.open(page_url(server.url + "/v1/", question="q", blocks=(1,), run=True))
        page.wait_for("document.body.dataset.state === 'failed'")
        assert page.evaluate(TEXT) == f"{server.url} broke its answer off; its log says more."


@needs_browser
def test_the_page_sends_a_key_to_the_server_alone(tmp_path):
    with stub(Reply()) as server, Browser(tmp_path / "profile") as page:
        page.open(page_url(server.url, question="q", blocks=(1,)))
        page.evaluate("document.getElementById('key').focus(), 0")
        page.type(" a-secret ")
        page.evaluate("ask([1]), 0")
        page.wait_for("document.body.dataset.state === 'done'")
        assert "secret" not in page.evaluate("location.href") + page.text()
        assert server.keys == ["Bearer a-secret"] * 2  # the first answer warms the server
        page.evaluate("location.hash = 'server=http://127.0.0.1:9', 0")
        page.wait_for("document.getElementById('key').value === ''")
        page.evaluate("document.getElementById('key').value = 'schl\u00fcssel', ask([1]), 0")
        page.wait_for("document.body.dataset.state === 'failed'")
        assert "A key has letters, digits and signs only." in page.text()


@needs_browser
def test_a_server_that_wants_a_key_says_so(tmp_path):
    refusal = Reply([json.dumps({"error": {"message": "Invalid API Key"}})], 401, "text/json")
    with stub(refusal) as server, Browser(tmp_path / "profile") as page:
        page.open(page_url(server.url, question="q", blocks=(1,), run=True))
        page.wait_for("document.body.dataset.state === 'failed'")
        asked = "answered 401: Invalid API Key (write the server's key into its field)"
        assert page.evaluate(TEXT) == f"{server.url} {asked}"
    assert server.keys == [None]


@needs_browser
def test_a_server_is_warmed_once_however_it_is_written(tmp_path):
    with stub(Reply()) as server, Browser(tmp_path / "profile") as page:
        page.open(page_url(server.url, question="q", blocks=(1,)))
        for url in (server.url, server.url + "/v1/"):
            page.evaluate("document.body.dataset.state = 'idle', 0")
            page.evaluate(f"document.getElementById('server').value = {url!r}, ask([1]), 0")
            page.wait_for("document.body.dataset.state === 'done'")
    assert [body["max_tokens"] for body in server.bodies] == [1, 64, 64]


@needs_browser
@pytest.mark.parametrize(
    ("url", "blocks", "message"),
    [
        ("http://127.0.0.1:9", (0, 2), "No answer from http://127.0.0.1:9. Is the server running"),
        ("ftp://h", (0,), "The server's address is http://HOST:PORT."),
        (None, (65,), "is there but failed at this question. Does the model take so many blocks?"),
    ],
)
def test_the_pages_errors_help(url, blocks, message, command, tmp_path):
    with Browser(tmp_path / "profile") as page:
        page.open(page_url(url or command[0].url, question="q", blocks=blocks, run=True))
        page.wait_for("document.body.dataset.state === 'failed'")
        assert page.text().count(message) == 1
