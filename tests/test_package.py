"""What `pip install` gives to somebody who has no repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, **options: object) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": ""},
        **options,  # type: ignore[arg-type]
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (file,) = folder.glob("*.whl")
    return file


def test_a_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("rim/")}
    known = ("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard")
    listed = {name.removeprefix("src/") for name in run(*known, "src/rim").splitlines()}
    recipes, inside = "recipes/paper", "rim/study/reproduce/recipes"
    listed |= {
        name.replace(recipes, inside, 1) for name in run(*known, recipes).splitlines()
    }  # which pyproject.toml puts there
    assert packed == listed
    for suffix in (".yaml", ".jinja", ".html", ".css", ".js", ".md"):
        assert any(name.endswith(suffix) for name in packed), suffix


@pytest.mark.slow
def test_a_wheel_runs_in_an_empty_environment(wheel, tmp_path):
    """Its own environment, which borrows what it depends on from this one."""
    venv.create(tmp_path / "env", with_pip=True, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    own = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")})
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "reasoning_in_memory" not in path.name and path.suffix != ".pth":
            (borrowed / path.name).symlink_to(path)
    (Path(own) / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")

    import rim

    where = run(python, "-c", "import rim; print(rim.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(own)
    command = python.with_name("rim")
    assert run(command, "--version", cwd=tmp_path).strip() == rim.__version__
    out = tmp_path / "test.jsonl"
    run(command, "data", "generate", "arithmetic", "--num-examples", 5, "--out", out)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 5
    report = tmp_path / "report.html"
    results = ROOT / "results" / "demo_seed0.json"
    run(command, "report", results, "--out", report, cwd=tmp_path)
    assert "<style>" in report.read_text(encoding="utf-8")


def test_the_citation_names_the_version_and_the_paper():
    import yaml

    import rim

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == rim.__version__
    assert cited["references"][0]["url"] in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
