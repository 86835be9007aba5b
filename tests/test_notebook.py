"""The notebook runs from the first cell to the last, and is kept without outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "tour.ipynb"

# In a process of its own: a kernel's warnings are not ours, and its threads outlive it.
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("RIM_TOUR_STEPS", "2")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    done = tmp_path / "done.ipynb"
    result = subprocess.run(
        [sys.executable, "-c", RUN, str(NOTEBOOK), str(done)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    printed = "".join(
        "".join(output.get("text", ()))
        for cell in json.loads(done.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", ())
    )
    assert "after block 3:" in printed
    assert "rim, no blocks: accuracy" in printed
    assert "model.safetensors" in printed


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    kept = [c for c in cells if c["cell_type"] == "code" and (c["outputs"] or c["execution_count"])]
    assert not kept, "clear the outputs before committing"
