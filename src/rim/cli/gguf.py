"""`rim gguf`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from rim.cli import common


def gguf(
    folder: Path,
    *,
    out: Path,
    weights: Annotated[Literal["f32", "f16", "bf16", "q8_0"] | None, typer.Option("--type")] = None,
    json_: bool = False,
) -> None:
    """Write an exported folder as one GGUF file for llama.cpp, and read it back.

    Families gpt2, llama and qwen3; tokenizers trained from scratch, GPT-2's, Llama 3's and
    Qwen's. Smaller types than q8_0: give the file to `llama-quantize`.

    Args:
        folder (FOLDER): Exported folder (`rim export`).
        out (FILE): New file, such as model.gguf.
        weights (NAME): Type of the matrices: f32, f16, bf16 or q8_0; as exported if left out.
    """
    with common.clear_errors():
        from rim.deploy.export.record import check_new, read_record

        read_record(folder)
        check_new(out, ".gguf")
        common.quiet_libraries()
        from rim.deploy.export.gguf import write_gguf
        from rim.report.progress import progress_bar

        with progress_bar(common.console_for(json_)) as bar:
            task = bar.add_task("tensors", total=None, note="")
            report = write_gguf(
                folder,
                out,
                weights=weights,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if json_:
            common.print_json(asdict(report))
            return
        common.say(
            f"Read back equal: {report.tensors} tensors as {report.weights}, {report.tokens} "
            f"tokens (text is split as llama.cpp's {report.pretokenizer})."
        )
        common.say(f"Written: {report.file} ({report.total_bytes / 1e6:.1f} MB)")
        common.say(f"Serve it: rim serve {common.quoted(report.file)}")
