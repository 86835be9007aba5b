"""`rim analyze` and `rim explain`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rim.cli import common
from rim.cli.help import Positive, PositiveOrNone
from rim.cli.reading import reading


def analyze(
    run: Path,
    data: Path,
    *,
    format_: str | None = None,
    column: list[str] | None = None,
    separator: str | None = None,
    blocks: str | None = None,
    limit: PositiveOrNone = None,
    batch_size: Positive = 32,
    max_new_tokens: Positive = 64,
    no_base: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
    json_: bool = False,
    device: str | None = None,
) -> None:
    """Look into the blocks: states of every block and layer, probes for intermediate values and for
    "this answer is right" beside their controls, principal components, attention.

    Half of the questions train the probes, the other half tests them. An interrupted analysis goes
    on where it was. `rim report` draws what is found; `rim explain` and `--select probe` use the
    probes, which are kept with the run.

    Args:
        run (RUN): Run or model folder of a method with blocks.
        no_base: Leave out the comparison with the model that the run started from.
        out (FOLDER): Where states and result go; RUN/analysis/DATA if left out.
        overwrite: Throw away what an earlier analysis left.
    """
    with common.clear_errors("The same command continues."):
        from rim.cli.checks import block_counts, check_folder, check_model
        from rim.config import ConfigError
        from rim.data.sources import data_hash, open_file
        from rim.models.folder import read_prompt_format

        counts = block_counts(blocks, least=1)
        if len(counts) > 1:
            raise ConfigError("rim analyze takes one number of --blocks")
        model_dir = check_model(run, counts, device)
        own = read_prompt_format(model_dir)
        if own.trained_blocks == 0:
            raise ConfigError(f"method {own.method!r} has no memory blocks to look into")
        examples = open_file(data, format_, limit, reading(column, separator))
        folder = out or run / "analysis" / data.stem
        check_folder(folder)
        _check_sklearn()
        if overwrite and (folder / "trained").exists():
            for part in ("trained", "base"):
                shutil.rmtree(folder / part, ignore_errors=True)
        reasoner = common.load(run, device)

        from rim.evaluate.analysis import analyze, num_layers, work
        from rim.evaluate.states import fingerprint
        from rim.results import environment, write_json

        person = common.console_for(json_)
        start = None if no_base else _base(reasoner, model_dir, person)
        count = own.trained_blocks if counts[0] is None else counts[0]
        total = work(len(examples), count, num_layers(reasoner), 1 + (start is not None))
        with common.progress("looking inside", total, person) as advance:
            found = analyze(
                reasoner,
                examples,
                folder,
                run,
                blocks=count,
                model=fingerprint(model_dir),
                base=start,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                progress=advance,
            )
        record = {
            "run": run.name,
            "data": {"name": data.name, "examples": len(examples), "hash": data_hash(examples)},
            "analysis": found,
            "environment": environment(),
        }
        write_json(folder / "analysis.json", record)
        _say_found(found, person)
        common.say(f"Result: {folder / 'analysis.json'}", person)
        if json_:
            common.print_json(record)


def _check_sklearn() -> None:
    import importlib.util

    from rim.config import ConfigError

    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError("rim analyze needs scikit-learn: pip install scikit-learn")


def _base(reasoner: Any, model_dir: Path, person: Any) -> Any:
    """What the run started from, as a reasoner; None, with the reason said, where it is gone."""
    from rim.config import ConfigError
    from rim.infer.reasoner import Reasoner
    from rim.models.loading import load_untrained

    try:
        model = load_untrained(model_dir, device=str(reasoner.model.device))
    except ConfigError as error:
        common.say(f"Not compared with the base: {error}", person)
        return None
    return Reasoner(model, reasoner.encoder)


def _say_found(found: dict[str, Any], person: Any) -> None:
    from rim.report.analysis import sentences

    for line in sentences(found):
        common.say(line, person)


def explain(
    run: Path,
    question: str,
    *,
    blocks: str | None = None,
    max_new_tokens: Positive = 64,
    json_: bool = False,
    device: str | None = None,
) -> None:
    """A line per block: the step it says, the answer so far and its probability, and what probes
    read off its states.

    Args:
        run (RUN): Run or model folder of a method with blocks.
        question (QUESTION): The question, quoted.
    """
    with common.clear_errors():
        from rim.cli.checks import block_counts, check_model
        from rim.config import ConfigError
        from rim.models.folder import read_prompt_format

        counts = block_counts(blocks, least=1)
        if len(counts) > 1:
            raise ConfigError("rim explain takes one number of --blocks")
        if not question.strip():
            raise ConfigError("the question is empty")
        own = read_prompt_format(check_model(run, counts, device))
        if own.trained_blocks == 0:
            raise ConfigError(f"method {own.method!r} has no blocks to explain")
        reasoner = common.load(run, device)

        from rim.evaluate.explain import explain
        from rim.report.analysis import explain_table

        result = explain(reasoner, run, question, blocks=counts[0], max_new_tokens=max_new_tokens)
        if json_:
            common.print_json(result)
            return
        shown = common.printable_tree(result)
        common.console.print(explain_table(shown))
        for line in shown["means"]:
            common.say(line)
