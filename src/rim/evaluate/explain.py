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

from rim.evaluate.faithfulness.readers import step_stage
from rim.evaluate.probe_files import VALUES_FILE, read_probes
from rim.evaluate.states import block_states, fingerprint
from rim.infer.reasoner import Reasoner, load
from rim.models.folder import find_model_dir


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
    blocks = reasoner.encoder.format.blocks_to("explain", blocks)
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
    trained = step_stage(run)
    if trained is not None and trained.folder is not None:
        earlier = load(trained.folder, device=str(reasoner.model.device))
        for row, said in zip(rows, earlier.ask_all_blocks(question, **options), strict=True):
            row["step"] = said.text
        means.append(
            f"step: what the model said after stage {trained.stage.name}; the finished model was "
            "trained on, and its blocks may hold something else"
        )
    elif trained is not None:
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
            about = {"value": value, "kind": placed.kind, "accuracy": placed.accuracy}
            about["layer"] = placed.layer
            rows[placed.block - 1]["probed"][placed.name] = about
