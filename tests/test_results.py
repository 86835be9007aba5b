"""What every results file states."""

from __future__ import annotations

import subprocess

import rim.results
from rim.results import git_commit


def test_a_checkout_is_dirty_where_a_result_may_depend_on_it(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        person = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *person, *arguments], cwd=tmp_path, check=True, capture_output=True)

    files = ("src/rim/results.py", "recipes/a.yaml", "results/a.json", "docs/a.svg", "README.md")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a")
    monkeypatch.setattr(rim.results, "__file__", str(tmp_path / files[0]))
    assert git_commit() is None
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    clean = git_commit()
    assert clean is not None and len(clean) == 40
    for name in files:
        (tmp_path / name).write_text("b")
        matters = name in files[:2]
        assert git_commit() == clean + ("-dirty" if matters else ""), name
        git("checkout", ".")
