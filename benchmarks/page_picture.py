r"""The picture of the web page in the README: one question, several numbers of memory blocks.

    python benchmarks/page_picture.py runs/demo-seed0/rim --picture docs/figures/page.png \
        --out results/page_picture.json

Serves a trained run with `transformers serve`, lets a headless Chromium ask with every number, and
photographs the page as it then is. The question is the README's if the blocks matter there (wrong
without, right with as many as in training), else the first such one of 200 validation questions.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import browser
from running_server import running

from rim.data.examples import Example
from rim.data.sources import load_examples, task_source
from rim.deploy.export import export_run
from rim.deploy.serve import page_url
from rim.infer.answers import grade
from rim.infer.reasoner import Reasoner, load
from rim.results import environment, write_json

#: What the README asks first.
QUESTION = Example(question="3+4-5+2-6=", steps=[], answer="8")
WIDTH, MOST_BYTES, ROUNDS = 900, 200_000, 5
ROWS = """[...document.querySelectorAll('li')].map((row) => ({
  blocks: Number(row.dataset.blocks), text: row.querySelector('.text').textContent,
  time: row.querySelector('.timing .note').textContent}))"""


def question_where_blocks_matter(reasoner: Reasoner) -> tuple[Example, str]:
    """The question and where it comes from.

    Raises:
        SystemExit: there is none.
    """
    validation = load_examples(
        task_source("arithmetic", {"num_examples": 200, "split": "validation"})
    )
    for source, examples in (("the README's", [QUESTION]), ("validation", validation)):
        asked = [example.question for example in examples]
        right = [
            [
                grade(answer.text, example, reasoner.encoder)
                for (answer,), example in zip(
                    reasoner.ask_many(asked, blocks=blocks), examples, strict=True
                )
            ]
            for blocks in (0, reasoner.trained_blocks)
        ]
        for example, without, with_blocks in zip(examples, *right, strict=True):
            if with_blocks and not without:
                return example, source
    raise SystemExit("with blocks this model is right at no question that it gets wrong without")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, help="run trained on the demo's task")
    parser.add_argument("--exported", type=Path, help="its export, if there is one")
    parser.add_argument("--blocks", default="0,1,3,5", help="numbers to compare")
    parser.add_argument("--picture", type=Path, required=True, help="PNG file")
    parser.add_argument("--out", type=Path, help="JSON of what the picture shows")
    args = parser.parse_args()
    if browser.PROGRAM is None:
        raise SystemExit("Chromium is missing (Debian: apt-get install chromium)")
    reasoner = load(args.run, device="cpu")
    example, source = question_where_blocks_matter(reasoner)
    blocks = [int(number) for number in args.blocks.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        exported = args.exported or export_run(args.run, Path(temporary) / "exported").folder
        extra = ["--device", "cpu"]
        with (
            running(exported, "transformers", [*extra, "--enable-cors"]) as plan,
            browser.Browser(Path(temporary) / "profile", WIDTH, 600) as page,
        ):
            url = page_url(
                plan.url,
                question=example.question,
                blocks=blocks,
                most_blocks=16,
                trained_blocks=reasoner.trained_blocks,
            )
            # The last of several: what is shown is measured on a warm server.
            for _ in range(ROUNDS):
                page.open(f"{url}&run=1")
                page.wait_for("['done', 'failed'].includes(document.body.dataset.state)", 120)
            page.wait_for("document.getElementById('reach').textContent === 'reachable'")
            shown = page.evaluate(ROWS)
            page.screenshot(args.picture)
    ours = {k: reasoner.ask(example.question, blocks=k).text for k in blocks}
    differ = [row["blocks"] for row in shown if row["text"] != ours[row["blocks"]]]
    size = args.picture.stat().st_size
    if differ or size > MOST_BYTES:
        args.picture.unlink()
        raise SystemExit(f"no picture: other answers than the run's at {differ}, or {size} bytes")
    result = {
        "question": example.question,
        "answer": example.answer,
        "question_from": source,
        "trained_blocks": reasoner.trained_blocks,
        "rows": shown,
        "bytes": size,
        "environment": environment(),
    }
    if args.out:
        write_json(args.out, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
