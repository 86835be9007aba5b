"""A teacher behind `transformers serve`: it says through HTTP what it says in this process."""

from __future__ import annotations

import json

from export_models import make_run
from running_server import running
from servers import needs_engine

from rim.data.examples import Example
from rim.deploy.export import export_run
from rim.deploy.serve import Client
from rim.infer.reasoner import load
from rim.prepare.distill import Work, distill_file, samples_file
from rim.prepare.teachers import ServerTeacher, TeacherSettings

pytestmark = needs_engine


def test_a_stock_server_teaches(plain_tokenizer, tmp_path):
    run = make_run("llama chat", plain_tokenizer, tmp_path / "run")
    exported = export_run(run, tmp_path / "exported").folder
    questions = [f"{i} + 4 <|im_end|>?" for i in range(6)]
    asking = TeacherSettings(samples=1, max_new_tokens=10, temperature=0, prompt="{question} Now:")
    reasoner, out = load(run, device="cpu"), tmp_path / "out.jsonl"
    with running(exported, "transformers", ["--device", "cpu"]) as server:
        work = Work.of([Example(q, (), "7") for q in questions])
        client = Client(server.url, model=server.model)
        distill_file(work, out, ServerTeacher(client, asking, work.golds, concurrency=2))
    rows = [json.loads(line) for line in samples_file(out).read_text().splitlines()]
    here = [reasoner.ask(asking.text(q), max_new_tokens=10).text for q in questions]
    assert [row["samples"][0]["text"] for row in rows] == here
