"""The Python lines of `docs/inside.md`, on a tiny model."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from export_models import make_run

from rim.config import MemoryConfig, TemplatesConfig
from rim.config.prompt_format import PromptFormat

PAGE = Path(__file__).parents[1] / "docs" / "inside.md"


def test_the_lines_of_the_page_run_and_their_lens_says_the_answers(
    tmp_path, monkeypatch, plain_tokenizer, capsys
):
    monkeypatch.chdir(tmp_path)
    templates = TemplatesConfig(question="{question}", answer="{answer}", step_separator=";")
    demo_like = PromptFormat(memory=MemoryConfig(blocks=5), templates=templates)
    folder = tmp_path / "runs" / "demo-seed0" / "rim"
    make_run("llama base", plain_tokenizer, folder, wanted=demo_like)

    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    left: dict = {}
    exec(compile(code, "inside.md", "exec"), left)

    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == [
        *(f"after block {k}" for k in range(1, 6)),
        *(f"block {k}" for k in range(6)),
        "as it is", "blocks zeroed", "the other question's blocks", "its second block alone",
    ]  # fmt: skip
    assert left["states"].shape == (2, 6, 3, 32)
    # What the page claims of the last layer: it is the first token of the answer after the block.
    questions = [left["question"], left["other"]]
    answers = left["generate"](left["model"], left["encoder"], questions, blocks=5, after="all")
    first = torch.tensor([[texts.token_ids[0] for texts in row] for row in answers])
    assert torch.equal(left["lens"][:, 1:, -1], first)
