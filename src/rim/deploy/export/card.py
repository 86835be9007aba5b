"""The model card of an export: what it is, how it is asked, what it scored, what it does not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from rim.core.prompt import PromptEncoder
from rim.deploy.export.check import CheckResult
from rim.deploy.export.record import BlockRange
from rim.models.folder import read_model_config
from rim.train.run_folder import RunFolder


def write_card(
    folder: Path, run: Path, source: Path, name: str, encoder: PromptEncoder, check: CheckResult
) -> None:
    """Write README.md."""
    base = read_model_config(source).base
    sections = [
        _front_matter(base, encoder),
        _introduction(name, encoder),
        _usage(name, encoder),
        _results(run),
        _provenance(run, base, check),
        _limits(encoder),
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def _is_hub_name(base: str | None) -> bool:
    return base is not None and not Path(base).exists() and base.count("/") == 1


def _front_matter(base: str | None, encoder: PromptEncoder) -> str:
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["reasoning-in-memory", encoder.format.method],
    }
    if _is_hub_name(base):
        fields["base_model"] = base
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _introduction(name: str, encoder: PromptEncoder) -> str:
    blocks = BlockRange.of(encoder.format)
    text = f"# {name}\n\nA causal language model trained with Reasoning in Memory "
    text += f"(method `{encoder.format.method}`).\n"
    if not blocks.most:
        return text + "It was trained without memory blocks and answers without them."
    return text + (
        "Its chat template puts memory blocks, fixed sequences of special tokens, into the\n"
        f"prompt: {blocks.default} as in training, or any number from 0 to {blocks.most} by the "
        "argument `blocks`.\n"
        "They are ordinary tokens under ordinary causal attention, so any engine serves them."
    )


def _usage(name: str, encoder: PromptEncoder) -> str:
    blocks = encoder.format.trained_blocks
    kwargs = json.dumps({"blocks": blocks})
    return f"""## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
messages = [{{"role": "user", "content": "YOUR QUESTION"}}]
inputs = tokenizer.apply_chat_template(
    messages,
    blocks={blocks},
    add_generation_prompt=True,
    return_tensors="pt",
    return_dict=True,
)
output = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

Servers: `transformers serve {name}`, then `"chat_template_kwargs": {kwargs}` in a request to
`/v1/chat/completions`."""


def _results(run: Path) -> str:
    """The evaluations that stand in the run folder, as they were measured."""
    rows = []
    for file in sorted((run / "evaluations").glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        final = record["summary"]["final"]
        share, low, high = (f"{100 * final[key]:.1f}" for key in ("accuracy", "low", "high"))
        rows.append(
            f"| {record['data']['name']} | {record['summary']['questions']} | "
            f"{record['settings']['blocks']} | {share} ({low}-{high}) |"
        )
    if not rows:
        return ""
    head = "| data | questions | blocks | accuracy % (95 %) |\n|---|---|---|---|"
    return "## Results\n\nMeasured with `rim eval` before the export.\n\n" + "\n".join(
        [head, *rows]
    )


def _provenance(run: Path, base: str | None, check: CheckResult) -> str:
    lines = ["## Where it comes from", ""]
    if _is_hub_name(base):
        lines.append(f"Fine-tuned from `{base}`; any adapter is merged into the weights.")
    folder = RunFolder(run)
    if folder.environment_file.exists():
        record = json.loads(folder.environment_file.read_text(encoding="utf-8"))
        commit = record["git_commit"]
        if commit:
            lines.append(f"Trained at commit `{commit}` of reasoning-in-memory.")
    counts = ", ".join(map(str, check.blocks))
    lines.append(
        f"The export's self-check compared {check.prompts} prompts and greedy answers with the\n"
        f"trained run (memory blocks: {counts}), in a process that has transformers alone:\n"
        f"token ids equal, logits within {check.max_logit_difference:.1e}.\n"
        "`rim_export.json` has the record."
    )
    return "\n".join(lines)


def _limits(encoder: PromptEncoder) -> str:
    turns = (
        "It was trained on single questions; the blocks stand in the last user turn only."
        if encoder.is_chat
        else "It answers single questions: one user message, no system message, no history."
    )
    return f"""## Limits

- {turns}
- The template breaks control strings in user text apart with a space. Raw completion endpoints
  do not use the template: text sent there is read with all control tokens.
- Memory tokens are suppressed through `generation_config.json`; engines that do not read
  `suppress_tokens` need them forbidden by other means.
- Decode greedily (temperature 0), as it was trained and measured."""
