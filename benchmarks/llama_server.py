"""llama.cpp's programs: where they are, and how to build them once.

    python benchmarks/llama_server.py          # builds llama-server and llama-quantize

The source is the one inside the sdist of llama-cpp-python on PyPI, at one version and hash, so that
everyone measures and tests the same llama.cpp. The programs go to a cache folder and stay there;
`RIM_LLAMA_SERVER`, or a llama-server on PATH, is taken instead where there is one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
PROGRAMS = ("llama-server", "llama-quantize")
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_OPENMP=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
MISSING = (
    "there is no llama-server: set RIM_LLAMA_SERVER, put one on PATH, or build it with "
    "`make llama-server`"
)


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "rim" / f"llama.cpp-{VERSION}"


def find(program: str = "llama-server") -> Path | None:
    """A program of llama.cpp: beside `RIM_LLAMA_SERVER`, on PATH, or in the cache folder."""
    named = os.environ.get("RIM_LLAMA_SERVER")
    if named:
        found = Path(named).with_name(program)
        return found if found.exists() else None
    on_path = shutil.which(program)
    if on_path:
        return Path(on_path)
    built = cache_folder() / program
    return built if built.exists() else None


def build() -> Path:
    """Download, compile and keep the programs; returns their folder."""
    missing = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    if missing:
        raise SystemExit(
            f"building llama.cpp needs {' and '.join(missing)} (pip install cmake; a C++ compiler "
            "comes with the system's build tools)"
        )
    target = cache_folder()
    with tempfile.TemporaryDirectory() as temporary:
        source = _download(Path(temporary))
        output = Path(temporary) / "build"
        _run("cmake", "-B", output, "-S", source, *FLAGS)
        _run("cmake", "--build", output, "--parallel", os.cpu_count(), "--target", *PROGRAMS)
        target.mkdir(parents=True, exist_ok=True)
        for program in PROGRAMS:
            shutil.move(output / "bin" / program, target / program)
    return target


def _download(folder: Path) -> Path:
    """The source of llama.cpp, out of an sdist that pip has checked against its hash."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    _run(
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"),
        *("--no-binary", ":all:", "--require-hashes", "-r", wanted, "-d", folder),
    )
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.glob("*/vendor/llama.cpp")
    return source


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True)


def main() -> None:
    found = find()
    if found is None:
        print("Compiling llama.cpp: a quarter of an hour of processor time, once.")
        found = build() / PROGRAMS[0]
    print(found)


if __name__ == "__main__":
    main()
