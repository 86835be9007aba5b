"""Reasoning in Memory without the trainer: the whole method in one plain loop.

    python examples/minimal_loop.py --steps 300

Chains of additions modulo 10, a tiny Llama from scratch, stage 1 (every block says a step), then
stage 2 (every block says the answer, later blocks weighing more), then answers after every block.
Two minutes on two cores show blocks learning one after the other; `rim demo` goes all the way.
"""

from __future__ import annotations

import argparse
import random

import torch

from rim.config import ArithmeticConfig, MemoryConfig, PromptFormat, StageConfig, TemplatesConfig
from rim.core.collate import collate
from rim.core.forward import forward_readouts
from rim.core.layout import lay_out
from rim.core.readout_weights import readout_weights
from rim.core.tokens import PromptEncoder, add_memory_tokens
from rim.data.tasks.arithmetic import generate_arithmetic
from rim.evaluate.accuracy import score
from rim.infer.reasoner import Reasoner
from rim.methods import METHODS
from rim.models.scratch import ScratchConfig, build_model, train_tokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--steps", type=int, default=300, help="optimizer steps a stage")
parser.add_argument("--batch-size", type=int, default=128)
arguments = parser.parse_args()
torch.manual_seed(0)
random.seed(0)

# 1. Data: a question, its steps, its answer. The splits share no question.
train = generate_arithmetic(ArithmeticConfig(num_examples=8000, max_operations=2, min_operations=1))
test = generate_arithmetic(ArithmeticConfig(num_examples=200, split="test", max_operations=2))

# 2. How text is written, and how many blocks follow a question.
prompt_format = PromptFormat(
    memory=MemoryConfig(blocks=3, tokens=2),
    templates=TemplatesConfig(question="{question}", answer="{answer}", step_separator=";"),
)

# 3. A tokenizer with the three memory tokens, and a model.
tokenizer = train_tokenizer(
    (e.question + e.steps[0] for e in train), vocab_size=16, alphabet="data"
)
add_memory_tokens(tokenizer, prompt_format.memory)
encoder = PromptEncoder(tokenizer, prompt_format)
model = build_model(ScratchConfig(layers=4, width=96, heads=4, feed_forward=256), tokenizer, "sdpa")

# 4. The curriculum: which target follows which block, and how much each read-out weighs.
stages = [
    StageConfig(
        name="grounding",
        objective="steps",
        alignment="own_step",
        surplus_blocks="answer",
        max_steps=arguments.steps,
        learning_rate=2e-3,
    ),
    StageConfig(
        name="refinement",
        objective="answer",
        weighting="later_more",
        max_steps=arguments.steps // 2,
        learning_rate=1e-3,
    ),
]

for stage in stages:
    # Every example becomes one flat sequence of integers: the trunk, then all its read-outs.
    layouts = [lay_out(METHODS["rim"], example, stage, encoder) for example in train]
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98))
    model.train()
    for step in range(stage.max_steps or 0):
        batch = collate(random.sample(layouts, arguments.batch_size))
        weights = readout_weights(
            stage.weighting,
            batch["num_readouts"],
            batch["num_step_readouts"],
            width=int(batch["num_readouts"].max()),
            max_readouts=3,
            progress=step / (stage.max_steps or 1),
        )
        # One forward pass trains all read-outs; the mask keeps them from seeing each other.
        loss = forward_readouts(model, batch, prompt_format.memory, weights).per_example_B.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            print(f"{stage.name} step {step + 1}: loss {loss.item():.3f}", flush=True)

    # 5. One prefill answers after every block.
    summary = score(
        Reasoner(model, encoder), test, blocks=3, max_new_tokens=8, batch_size=200
    ).summary
    after = ", ".join(f"{100 * row['accuracy']:.0f} %" for row in summary["per_block"])
    print(f"right answers after block 1, 2, 3: {after}", flush=True)
