"""One question, a line a block: what each block says, by every means that the run has.

- the answer so far and its probability: the model's own read-out;
- the step: the read-out of the model as it was after the stage that trained on steps (its blocks
  are not those of the finished model, which another stage trained on);
- values of steps: linear probes on the finished model's own states (`rim analyze`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rim.config import ConfigError
from rim.config.recipe_yaml import load_recipe
from rim.evaluate.probe_files import VALUES_FILE, read_probes
from rim.evaluate.states import block_states, fingerprint
from rim.infer.reasoner import Reasoner, load
from rim.models.folder import find_model_dir
from rim.train.run_folder import RunFolder


def step_stage(run: Path) -> Path | None:
    """The model of a run's last stage that trained on steps; None where that is the finished model,
    or there is none.
    """
    folder = RunFolder(run)
    if not folder.config_file.exists():
        return None
    stages = load_recipe(folder.config_file).stages
    found = None
    for index, stage in enumerate(stages):
        if stage.objective == "steps" and folder.stage_result(index, stage).exists():
            found = None if index == len(stages) - 1 else folder.stage_result(index, stage)
    return found


def says_steps(run: Path) -> bool:
    """Whether the finished model's own read-outs say steps: its last stage trained on them."""
    file = RunFolder(run).config_file
    return file.exists() and load_recipe(file).stages[-1].objective == "steps"


def explain(
    reasoner: Reasoner,
    run: Path,
    question: str,
    *,
    blocks: int | None = None,
    max_new_tokens: int = 64,
) -> dict[str, Any]:
    """
    Returns:
        `blocks`, one record each: `answer`, `text`, `probability`, `step` (None without such a
        stage), `probed` (by name: value, accuracy of the probe on test questions, layer); and
        `means`, sentences that say where these come from.

    Raises:
        ConfigError: a model without blocks.
    """
    blocks = reasoner.trained_blocks if blocks is None else blocks
    if blocks < 1:
        raise ConfigError(f"method {reasoner.encoder.format.method!r} has no blocks to explain")
    options = {"blocks": blocks, "max_new_tokens": max_new_tokens}
    rows: list[dict[str, Any]] = [
        {
            "block": answer.after_block,
            "answer": answer.answer,
            "text": answer.text,
            "probability": math.exp(answer.logprob),
            "step": None,
            "probed": {},
        }
        for answer in reasoner.ask_all_blocks(question, **options)
    ]
    means = []
    stage = step_stage(run)
    if stage is not None:
        earlier = load(stage, device=str(reasoner.model.device))
        for row, said in zip(rows, earlier.ask_all_blocks(question, **options), strict=True):
            row["step"] = said.text
        means.append(
            f"step: what the model said after stage {stage.parent.name}; the finished model was "
            "trained on, and its blocks may hold something else"
        )
    elif says_steps(run):
        means.append("answer: this model's read-outs say steps, as its last stage trained them")
    if (run / VALUES_FILE).exists():
        _add_probed(rows, reasoner, run, question, blocks)
        means.append(
            "probed: values read off the finished model's states by linear probes; in brackets "
            "how often such a probe is right on test questions"
        )
    else:
        means.append(f"no probes yet: rim analyze {run} DATA trains them")
    return {"question": question, "blocks": rows, "means": means}


def _add_probed(
    rows: list[dict[str, Any]], reasoner: Reasoner, run: Path, question: str, blocks: int
) -> None:
    probes = read_probes(run / VALUES_FILE, fingerprint(find_model_dir(run)))
    states_KLD = block_states(reasoner, [question], blocks).numpy()[0]
    for placed in probes:
        if placed.block <= blocks:
            value = placed.probe.predict(states_KLD[placed.block, placed.layer][None])[0]
            about = {"value": value, "accuracy": placed.accuracy, "layer": placed.layer}
            rows[placed.block - 1]["probed"][placed.name] = about
