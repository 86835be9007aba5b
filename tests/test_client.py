"""The client of chat completions, and `rim ask --server`, against servers of every temper."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from stub_server import Reply, event, stub
from test_cli import plain_console, rim_command  # noqa: F401

from rim.config import ConfigError
from rim.deploy.serve.client import Client, ServerRefusal, normal_url


@pytest.mark.slow
def test_a_request_says_what_was_asked_and_no_more():
    with stub(Reply()) as server:
        Client(server.url).ask("q")
        Client(server.url + "/v1/", forbidden_ids=(5, 7)).ask("q", blocks=0, max_new_tokens=3)
        Client(server.url).ask("q", blocks=4, temperature=0.5, top_p=0.9, seed=1)
    base = {
        "messages": [{"role": "user", "content": "q"}],
        "max_tokens": 64,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "path": "/v1/chat/completions",
    }
    assert server.bodies[0] == base
    assert server.bodies[1] == base | {
        "max_tokens": 3,
        "chat_template_kwargs": {"blocks": 0},
        "logit_bias": {"5": -100, "7": -100},
    }
    assert server.bodies[2] == base | {
        "chat_template_kwargs": {"blocks": 4},
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 1,
    }


def test_the_pieces_of_an_answer_are_joined_parsed_and_timed():
    pieces = [
        ": a comment\n\n",
        event("") + event("3+4=7\n####"),
        event(" 1,2"),
        event("34", None) + event(None, "stop", usage={"completion_tokens": 9}),
        'data: {"choices": [], "usage": null}\n\ndata: [DONE]\n\n',
    ]
    with stub(Reply(pieces, pause=0.05)) as server:
        answer = Client(server.url).ask("q", blocks=2)
    assert (answer.text, answer.answer) == ("3+4=7\n#### 1,234", "1234")
    assert (answer.blocks, answer.finished, answer.num_tokens) == (2, True, 9)
    assert 50 < answer.first_ms < answer.answer_ms - 100


def test_an_error_that_is_none_is_none():
    with stub(Reply([event("7", "stop", error=None)])) as server:
        assert Client(server.url).ask("q").text == "7"


def test_a_server_may_want_a_models_name_and_a_key(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "abc")
    with stub(Reply()) as server:
        Client(server.url, model="m", api_key="xyz").ask("q")
        asked = ["ask", "q", "--server", server.url]
        rim_command(*asked, "--model", "n", "--api-key-env", "SOME_KEY")
        rim_command(*asked)
        output = rim_command(*asked, "--api-key-env", "NO_SUCH_KEY", code=2)
    assert [body.get("model") for body in server.bodies] == ["m", "n", None]
    assert server.keys == ["Bearer xyz", "Bearer abc", None]
    assert "there is nothing in the variable NO_SUCH_KEY" in output
    with pytest.raises(ConfigError, match="printable ASCII"):
        Client("h", api_key="a\nb")
    assert "only with --server" in rim_command("ask", "runs/x", "q", "--model", "m", code=2)


HOSTILE = "\x1b]0;caught\x07 7\u202e\x9b31m\ud800"


def test_what_a_server_says_cannot_command_the_terminal():
    for reply, code in (
        (Reply([event(HOSTILE), event(None, "stop")]), 0),
        (Reply([json.dumps({"error": HOSTILE})], 400), 2),
        (Reply([f"data: {HOSTILE[:-1]}\n\n"]), 2),
    ):
        with stub(reply) as server:
            output = rim_command("ask", "--server", server.url, "q", code=code)
        assert "caught" in output and output.replace("\n", "").isprintable()
    with stub(Reply([event(HOSTILE), event(None, "stop")])) as server:
        output = rim_command("ask", "--server", server.url, "q", "--json")
    assert output.strip().isprintable()
    assert json.loads(output)[0]["text"] == HOSTILE


def test_an_answer_at_its_limit_is_unfinished():
    with stub(Reply([event("1 2"), event(None, "length")])) as server:
        assert not Client(server.url).ask("q").finished


WRONG = (
    "null",
    "[]",
    '"text"',
    '{"choices": [null]}',
    '{"choices": [{"delta": {"content": 7}, "finish_reason": "stop"}]}',
    '{"usage": 3}',
)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            Reply(['{"error": {"message": "blocks must be", "code": 400}}'], 400),
            "answered 400: blocks must be",
        ),
        (Reply(['{"detail": "Server is pinned"}'], 422), "answered 422: Server is pinned"),
        (Reply(["Internal Server Error"], 500), "answered 500: Internal Server Error; it may"),
        (Reply(["<html>"], 404, "text/html"), "answered 404: <html>; is it a chat completions"),
        (Reply(["<html>"], 200, "text/html"), "is no chat completions server: it sent text/html"),
        (Reply(['data: {"error": "out of "memory""}\n\n']), 'sent: {"error": "out of "memory""}'),
        (Reply(['data: {"error": {"message": "no room"}}\n\n']), "sent: no room"),
        (Reply([event("half an ans")]), "broke its answer off"),
        (Reply([event("half an ans")], promised=9999), "broke its answer off"),
        *[
            (Reply([f"data: {wrong}\n\n"]), "server: its answer is of another form")
            for wrong in WRONG
        ],
        (Reply([event("late")], pause=1.0), "gave no sign of life for 0.3 s"),
    ],
)
def test_a_servers_trouble_is_one_clear_sentence(reply, message):
    with stub(reply) as server, pytest.raises(ConfigError) as error:
        Client(server.url, timeout=0.3).ask("q")
    assert message in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        Reply([event("half an ans")]),
        Reply([event("half an ans")], promised=9999),
        Reply([event("late")], pause=1.0),
    ],
)
def test_a_stream_that_breaks_off_is_asked_for_again(first):
    with stub(first, Reply()) as server:
        assert Client(server.url, timeout=0.3, retries=1).ask("q").answer == "7"
        assert len(server.bodies) == 2
    with stub(first) as server, pytest.raises(ServerRefusal):
        Client(server.url, timeout=0.3, retries=1).ask("q")
    assert len(server.bodies) == 2


def test_no_server_and_no_web_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"gave no sign of life for 0\.2 s"):
            Client(url, timeout=0.2).ask("q")
    with pytest.raises(ConfigError, match=r"no server at .*; start one with `rim serve RUN`"):
        Client(url).ask("q")


def test_a_redirection_is_told_and_not_followed():
    """Else another server would get the question, and this one's key."""
    with stub(Reply([], 307)) as server, pytest.raises(ConfigError, match="answered 307"):
        Client(server.url, api_key="xyz").ask("q")


def test_nothing_of_the_environment_is_told_to_a_server(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer secret")
    with stub(Reply()) as server:
        Client(server.url).ask("q")
    assert "secret" not in str(server.headers)


def test_loopback_is_asked_without_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with stub(Reply()) as server:
        assert Client(server.url).ask("q").answer == "7"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        (" http://localhost:8000/ ", "http://localhost:8000"),
        ("https://host/models/v1/", "https://host/models"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_addresses_are_read_as_people_write_them(written, meant):
    assert normal_url(written) == meant


@pytest.mark.parametrize(
    "wrong",
    [
        *("file:///etc/passwd", "ftp://host", "http://", "", "http://h?a", "http://h#x"),
        *("http://[::1", "http://h:x", "http://h:0", "http://a..b", "http://u:p@h", "http://h/ä"),
    ],
)
def test_anything_but_a_web_address_is_refused(wrong):
    with pytest.raises(ConfigError, match="a server's address is"):
        Client(wrong)


def test_ask_shows_a_servers_answers_one_a_line():
    reply = Reply([event("so #### 7"), event(None, "length")])
    with stub(reply) as server:
        line = rim_command("ask", "--server", server.url, "q [b]?")
        many = rim_command("ask", "q", "--server", server.url, "--blocks", "0, 2,5")
        record = json.loads(rim_command("ask", "q", "--server", server.url, "--json"))
    assert line.startswith("7    'so #### 7'  (cut off by --max-new-tokens)    [first text ")
    assert [row.split(":")[0] for row in many.splitlines()] == ["0 blocks", "2 blocks", "5 blocks"]
    assert [(r["answer"], r["blocks"], r["finished"]) for r in record] == [("7", None, False)]
    assert server.bodies[0]["messages"][0]["content"] == "q [b]?"
    asked = [body.get("chat_template_kwargs", {}).get("blocks") for body in server.bodies]
    # The first of several is asked once more beforehand, unmeasured.
    assert asked == [None, 0, 0, 2, 5, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["q", "--all-blocks"], "a server does not take --all-blocks (ask for --blocks 1,2,3"),
        (["q", "--top-k", "3"], "a server does not take --top-k"),
        (["q", "--samples", "2", "--temperature", "1"], "a server does not take --samples"),
        (["q", "--device", "cpu"], "a server does not take --device"),
        (["runs/x", "q"], "with --server give the question alone"),
        (["  "], "the question is empty"),
        (["q", "--blocks", "-1"], "--blocks takes a number from 0, or several (2,5,8), got '-1'"),
        (["q", "--blocks", "1,,2"], "got '1,,2'"),
    ],
)
def test_what_a_server_cannot_do_is_refused(arguments, message):
    with stub(Reply()) as server:
        output = rim_command("ask", "--server", server.url, *arguments, code=2)
    assert message in output
    assert server.bodies == []


def test_ask_without_run_and_server_says_what_is_missing():
    assert "give a run and a question" in rim_command("ask", "what is 3+4?", code=2)


@pytest.mark.slow
def test_asking_a_server_imports_nothing_heavy():
    code = (
        "import sys, rim.deploy.serve\nrim.deploy.serve.Client('h')\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_answer_with_probabilities_must_be_a_chat_completion():
    for content in ("[]", "no", '{"choices": []}', '{"choices": [{"message": {}}], "usage": 3}'):
        with (
            stub(Reply([content], kind="application/json")) as server,
            pytest.raises(ConfigError, match=r"is no chat completions server|sent: no$"),
        ):
            Client(server.url).ask("q", logprobs=True)
