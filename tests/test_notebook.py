"""The notebook runs from the first cell to the last, and is kept without outputs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import warm

NOTEBOOK = Path(__file__).parents[1] / "examples" / "tour.ipynb"

# In a process of its own, as a kernel is. A kernel itself would add seconds, and nothing to
# cells of plain Python.
RUN = """
import json, sys
sys.path.insert(0, sys.argv[2])
from export_models import checked_in_process
cells = {"__name__": "__main__"}
with checked_in_process():
    for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), cells)
"""


def code_cells() -> list[dict]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    assert not any(line[0] in "%!" for cell in code_cells() for line in cell["source"])
    monkeypatch.setenv("RIM_TOUR_STEPS", "2")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-c", RUN, NOTEBOOK, Path(__file__).parent]
    result = warm.run(command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "after block 3:" in result.stdout
    assert "rim, no blocks: accuracy" in result.stdout
    assert "model.safetensors" in result.stdout


def test_the_notebook_is_kept_without_outputs():
    kept = [cell for cell in code_cells() if cell["outputs"] or cell["execution_count"]]
    assert not kept, "clear the outputs before committing"
