"""How llama.cpp's programs are found and built, without a compiler and without a network."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import llama_server
import pytest

from rim.config import ConfigError
from rim.deploy.serve import Subject, find_engine
from rim.deploy.serve.engines import LLAMA_VARIABLE, find_llama, llama_cache

ROOT = Path(__file__).parents[1]
GGUF = Subject(None, Path("m.gguf"), None)


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A machine without llama.cpp."""
    monkeypatch.delenv(LLAMA_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "python"))


def installed(file: Path) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


def test_what_make_built_is_what_rim_serve_starts():
    assert find_llama() is None
    built = installed(llama_cache() / "llama-server")
    assert find_llama() == built
    assert find_engine("auto", GGUF).program == (built,)


def test_places_are_searched_in_one_order(tmp_path, monkeypatch):
    for folder in (llama_cache(), tmp_path / "bin", tmp_path / "env"):
        for program in llama_server.PROGRAMS:
            expected = installed(folder / program)
            assert find_llama(program) == expected
    # Whatever the server is called, it is the one that was named.
    named = installed(tmp_path / "opt" / "my-llama")
    installed(tmp_path / "opt" / "llama-server")
    monkeypatch.setenv(LLAMA_VARIABLE, named)
    assert find_llama() == named
    assert find_llama("llama-quantize") == str(tmp_path / "env" / "llama-quantize")
    beside = installed(tmp_path / "opt" / "llama-quantize")
    assert find_llama("llama-quantize") == beside
    monkeypatch.setenv(LLAMA_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="gone, which is no program"):
        find_llama("llama-quantize")


@pytest.fixture
def sdist(tmp_path, monkeypatch):
    """A small one at an address of its own."""
    file = tmp_path / "sdist.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        content = b"project(llama.cpp)"
        entry = tarfile.TarInfo("llama_cpp_python-1/vendor/llama.cpp/CMakeLists.txt")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(llama_server, "URL", file.as_uri())
    monkeypatch.setattr(llama_server, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    return file


def test_the_source_is_unpacked_only_with_the_right_hash(sdist, tmp_path):
    (tmp_path / "right").mkdir()
    source = llama_server.download(tmp_path / "right")
    assert (source / "CMakeLists.txt").read_text() == "project(llama.cpp)"
    sdist.write_bytes(sdist.read_bytes() + b"\0")
    (tmp_path / "wrong").mkdir()
    with pytest.raises(SystemExit, match=r"has the SHA-256 .*; nothing was unpacked"):
        llama_server.download(tmp_path / "wrong")
    assert [path.name for path in (tmp_path / "wrong").iterdir()] == ["sdist.tar.gz"]
    sdist.unlink()
    with pytest.raises(SystemExit, match="cannot fetch file://"):
        llama_server.download(tmp_path / "wrong")


@pytest.fixture
def commands(monkeypatch, sdist, tmp_path):
    """A compiler that writes the programs it is asked for; gives the commands it got."""
    run: list[list[str]] = []

    def compiler(command, *, check):
        run.append(command)
        if "--target" in command:
            for program in command[command.index("--target") + 1 :]:
                installed(Path(command[2]) / "bin" / program)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(llama_server.subprocess, "run", compiler)
    for tool in ("cmake", "c++"):
        installed(tmp_path / "bin" / tool)
    return run


def test_only_missing_programs_are_built(commands, tmp_path, capsys):
    there = installed(tmp_path / "bin" / "llama-server")
    llama_server.main()
    assert commands[1][commands[1].index("--target") + 1 :] == ["llama-quantize"]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Compiling llama-quantize:")
    assert said[1:] == [there, str(llama_cache() / "llama-quantize")]
    llama_server.main()
    assert len(commands) == 2
    assert capsys.readouterr().out.splitlines() == said[1:]


def test_a_program_gets_its_name_when_it_is_whole(commands, monkeypatch):
    def broken_off(source, target):
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", broken_off)
        with pytest.raises(KeyboardInterrupt):
            llama_server.build()
    assert list(llama_cache().iterdir()) == []
    llama_server.build()
    assert sorted(path.name for path in llama_cache().iterdir()) == sorted(llama_server.PROGRAMS)


def test_what_is_missing_is_named(tmp_path, commands):
    with pytest.raises(SystemExit, match="there is no llama-quantize: set RIM_LLAMA_SERVER"):
        llama_server.program("llama-quantize")
    (tmp_path / "bin" / "cmake").unlink()
    with pytest.raises(SystemExit, match="llama-server and llama-quantize needs cmake"):
        llama_server.main()


def test_the_flags_of_equal_answers_are_those_of_the_document():
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert f"`{' '.join(llama_server.EXACT)}`" in text
