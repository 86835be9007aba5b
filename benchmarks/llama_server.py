"""llama.cpp's programs, built once.

    python benchmarks/llama_server.py          # builds llama-server and llama-quantize

The source is the one inside the sdist of llama-cpp-python on PyPI, at one version and hash, so that
everyone measures and tests the same llama.cpp. The programs go to a cache folder and stay there;
`rim serve` looks there as well (`rim.deploy.serve.engines.find_llama`). What is found elsewhere, by
`RIM_LLAMA_SERVER` or on PATH, is not built.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from rim.config import ConfigError
from rim.deploy.serve.engines import LLAMA_VERSION, find_llama, llama_cache

#: Fetched by its address: pip would run the sdist's build backend before it could be looked at.
URL = (
    "https://files.pythonhosted.org/packages/ec/e9/"
    "e7de2b0463ea3ffbf0ede6cb21b58c1258a8f6521aae45ca773a59fe7cf3/"
    f"llama_cpp_python-{LLAMA_VERSION}.tar.gz"
)
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
PROGRAMS = ("llama-server", "llama-quantize")
CMAKE_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_OPENMP=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
#: Flags of llama-server for tests and figures: one thread, no page.
FLAGS = ("--threads", "1", "--no-webui")
#: Float32 in the cache and no fused attention: answers equal ours token for token.
EXACT = ("-ctk", "f32", "-ctv", "f32", "-fa", "off")
_TIMEOUT_SECONDS = 60


def missing() -> list[str]:
    """Which of the programs are nowhere."""
    return [program for program in PROGRAMS if find_llama(program) is None]


def how_to_get(programs: Sequence[str]) -> str:
    return (
        f"there is no {' and no '.join(programs)}: set RIM_LLAMA_SERVER to a llama-server (the "
        "others may stand beside it), put them on PATH, or build them with `make llama-server`"
    )


def program(name: str) -> str:
    """
    Raises:
        SystemExit: it is nowhere; says how to get it.
    """
    found = find_llama(name)
    if found is None:
        raise SystemExit(how_to_get([name]))
    return found


def build(programs: Sequence[str] = PROGRAMS) -> None:
    """Download, compile and keep programs."""
    tools = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    if tools:
        raise SystemExit(
            f"building {' and '.join(programs)} needs {' and '.join(tools)} (pip install cmake; a "
            "C++ compiler comes with the system's build tools)"
        )
    with tempfile.TemporaryDirectory() as temporary:
        source = download(Path(temporary))
        output = Path(temporary) / "build"
        _run("cmake", "-B", output, "-S", source, *CMAKE_FLAGS)
        _run("cmake", "--build", output, "--parallel", os.cpu_count(), "--target", *programs)
        for name in programs:
            _keep(output / "bin" / name)


def download(folder: Path) -> Path:
    """The source of llama.cpp, unpacked into a folder once its hash is right."""
    sdist = folder / "sdist.tar.gz"
    try:
        with (
            urllib.request.urlopen(URL, timeout=_TIMEOUT_SECONDS) as response,
            sdist.open("wb") as file,
        ):
            shutil.copyfileobj(response, file)
    except OSError as error:
        raise SystemExit(f"cannot fetch {URL}: {error}") from None
    with sdist.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise SystemExit(f"{URL} has the SHA-256 {found}, not {SHA256}; nothing was unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.glob("*/vendor/llama.cpp")
    return source


def _keep(built: Path) -> None:
    """Copy a program into the cache; it gets its name once it is whole."""
    cache = llama_cache()
    cache.mkdir(parents=True, exist_ok=True)
    draft = cache / f".{built.name}-{os.getpid()}"
    try:
        shutil.copy2(built, draft)
        os.replace(draft, cache / built.name)
    finally:
        draft.unlink(missing_ok=True)


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True)


def main() -> None:
    try:
        wanted = missing()
        if wanted:
            print(
                f"Compiling {' and '.join(wanted)}: a quarter of an hour of processor time, once.",
                flush=True,
            )
            build(wanted)
    except ConfigError as error:
        raise SystemExit(f"Error: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"Error: `{error.cmd[0]}` failed; its lines above say why") from None
    for name in PROGRAMS:
        print(program(name))


if __name__ == "__main__":
    main()
