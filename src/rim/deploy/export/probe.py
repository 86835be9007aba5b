"""A stranger's view of an exported folder: this file runs in a process of its own, on transformers
alone.

    python -I probe.py DIR JOB.json RESULT.json LOGITS.safetensors

JOB holds `cases` (a conversation and the template's arguments each), `texts` (conversations that
are only tokenized), `refused` (arguments that must fail) and `max_new_tokens`. Nothing of our own
package may be imported here.
"""

import json
import sys
from typing import Any

import torch
from jinja2 import TemplateError  # of transformers' own chat templates
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(folder: str, job_file: str, result_file: str, logits_file: str) -> None:
    if "rim" in sys.modules:
        raise RuntimeError("this process must not have our package")
    # From here on an import of it would fail, not help.
    sys.modules["rim"] = None  # type: ignore[assignment]
    with open(job_file, encoding="utf-8") as file:
        job = json.load(file)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval()

    def encode(conversation, arguments):
        return tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_dict=False, **arguments
        )

    prompts = [encode(case["messages"], case["arguments"]) for case in job["cases"]]
    answers = []
    for ids in prompts:
        input_ids = torch.tensor([ids])
        output = model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=job["max_new_tokens"],
        )
        answers.append(output[0, len(ids) :].tolist())
    accepted = []
    for arguments in job["refused"]:
        try:
            encode(job["cases"][0]["messages"], arguments)
        except TemplateError:
            continue
        accepted.append(arguments)
    model.float()
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in prompts]
    save_file({"logits": torch.stack(logits)}, logits_file)
    result = {
        "prompts": prompts,
        "answers": answers,
        "texts": [encode(messages, {}) for messages in job["texts"]],
        "accepted": accepted,
    }
    with open(result_file, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
