"""Two methods of one's own, each a declaration that the whole library reads.

docs/write-a-method.md explains them; the tests train, ask, save, compare and time both.
"""

from __future__ import annotations

from torch import nn

from rim.methods import METHODS, BenchSetup, Method, Readout


class Countdown(Method):
    """Fixed tokens: every block says how many steps are left, the last one the answer."""

    name = "countdown"
    summary = "every block says how many steps are left"
    objectives = ("steps", "answer")
    has_blocks = True
    bench = BenchSetup(blocks="swept")

    def readouts(self, example, stage, encoder):
        blocks = encoder.format.memory.blocks
        answer = Readout(blocks, encoder.answer_ids(example.answer))
        if stage.objective == "answer":
            return [answer]
        left = {k: str(max(0, len(example.steps) - k)) for k in range(1, blocks)}
        said = [Readout(k, encoder.step_ids(n), is_step=True) for k, n in left.items()]
        return [*said, answer]


def gate(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh())


class GatedFeedback(Method):
    """Recurrent: hidden states fed back through a gate, and kept small by a loss."""

    name = "gated"
    summary = "hidden states fed back through a gate"
    objectives = ("answer",)
    has_blocks = True
    # Under this name, the module stands between a hidden state and the next latent's input.
    extra_modules = {"latent_projection": gate}  # noqa: RUF012
    bench = BenchSetup(blocks=2, memory={"tokens": 1, "framing": "once"})

    def feedback(self, memory):
        return "chain"

    def check(self, memory):
        if memory.tokens != 1:
            raise ValueError("gated needs memory.tokens: 1")

    def readouts(self, example, stage, encoder):
        return [Readout(encoder.format.memory.blocks, encoder.answer_ids(example.answer))]

    def extra_loss(self, stage):
        return lambda hidden_states, batch: hidden_states[-1].square().mean((1, 2))


if __name__ == "__main__":
    for method in (Countdown(), GatedFeedback()):
        METHODS.register(method)
        print(f"{method.name}: {method.summary}")
