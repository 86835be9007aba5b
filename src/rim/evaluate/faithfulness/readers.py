"""What reads a step off a block: its own read-out, the read-out of an earlier stage, a probe.

All readers say, for a question and a block, the value of the step that the block was trained to
hold; which step that is, the method itself declares (`Method.readouts`). How far they can be
believed is measured by `rim.evaluate.faithfulness.measure`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rim.config import ConfigError, StageConfig
from rim.config.recipe_yaml import load_recipe
from rim.core.tokens import PromptEncoder
from rim.data.examples import Example
from rim.evaluate.cache_interventions import Part, transplant
from rim.evaluate.probe_files import VALUES_FILE, Placed, read_probes
from rim.evaluate.probes import is_untouched, label_of, value_of
from rim.evaluate.protocols.asking import Asking
from rim.evaluate.protocols.pairs import Pair
from rim.evaluate.states import block_states, fingerprint
from rim.infer.answers import same_answer
from rim.infer.reasoner import Reasoner, load
from rim.methods import METHODS
from rim.models.folder import find_model_dir
from rim.train.run_folder import RunFolder

#: Which step (from 1) each block is to say.
Steps = Mapping[int, int]


@dataclass(frozen=True)
class StepStage:
    """A run's last stage that trained on steps. folder: its model; None where that is the finished
    one.
    """

    stage: StageConfig
    folder: Path | None


def step_stage(run: Path) -> StepStage | None:
    """None where no finished stage trained read-outs to say steps, or nothing says what the stages
    were. Steps that blocks say in place are not read out.
    """
    folder = RunFolder(run)
    if not folder.config_file.exists():
        return None
    recipe = load_recipe(folder.config_file)
    if METHODS[recipe.method].steps_in_place:
        return None
    stages, found = recipe.stages, None
    for index, stage in enumerate(stages):
        result = folder.stage_result(index, stage)
        if stage.objective == "steps" and (index == len(stages) - 1 or result.exists()):
            found = StepStage(stage, None if index == len(stages) - 1 else result)
    return found


@dataclass(frozen=True)
class Held:
    """steps: which step each block says. answer_after: the block that says the answer."""

    steps: Steps
    answer_after: int


def held_by_blocks(
    example: Example, stage: StageConfig | None, encoder: PromptEncoder, blocks: int
) -> Held:
    """As the stage trained them; without one, block t is looked at for step t."""
    if stage is None:
        return Held({t: t for t in range(1, min(blocks, len(example.steps)) + 1)}, blocks)
    said = METHODS[encoder.format.method].readouts(example, stage, encoder)
    steps = [r.after_block for r in said if r.is_step]
    first = len(example.steps) - len(steps) + 1
    by_block = {block: first + i for i, block in enumerate(steps) if block <= blocks}
    return Held(by_block, min(said[-1].after_block, blocks))


def step_value(text: str) -> str:
    """The number that a step ends in, or the step as it stands."""
    return value_of(text) or text.strip()


class Reader(ABC):
    """kind: one word for JSON. means: a sentence that says where its steps come from.
    says: the answer is asked of this model, too (not of another one).
    """

    kind: ClassVar[str]
    means: str
    says_answer: bool = False

    def takes(self, example: Example) -> bool:
        """Whether this question may be used to score the reader."""
        return True

    @abstractmethod
    def read(self, examples: Sequence[Example], held: Sequence[Steps]) -> list[dict[int, str]]:
        """For every question and block the value that is read; "" where nothing can be."""

    @abstractmethod
    def read_patched(
        self, pairs: Sequence[Pair], sources: Sequence[Example], part: Part, block: int
    ) -> list[str]:
        """Read `block` after the recipient's `part` was replaced by that of its source."""

    def label(self, step: str, block: int, number: int) -> str:
        """What is read off a block that holds this step: its value, or as much of it as the reader
        tells.
        """
        return step_value(step)

    def tells_values(self, block: int, number: int) -> bool:
        """Whether whole values are read, with which the task can go on."""
        return True

    def agrees(self, read: str, step: str, block: int, number: int) -> bool:
        """Whether what was read off a block is the value of this step's text."""
        return same_answer(read, self.label(step, block, number))

    def tells_apart(self, step: str, other: str, block: int, number: int) -> bool:
        """Whether two steps are read as different ones: last digits tell no 12 from 22."""
        return not self.agrees(self.label(step, block, number), other, block, number)


class ReadoutReader(Reader):
    """A model's read-outs that say steps: the finished model's own, or an earlier stage's."""

    kind = "read-out"

    def __init__(self, reasoner: Reasoner, means: str, *, own: bool, max_new_tokens: int = 64):
        self.reasoner, self.means, self.says_answer = reasoner, means, own
        self.kind = "own read-out" if own else "stage's read-out"  # type: ignore[misc]
        self.max_new_tokens = max_new_tokens

    def read(self, examples: Sequence[Example], held: Sequence[Steps]) -> list[dict[int, str]]:
        found: list[dict[int, str]] = [{} for _ in examples]
        for block in sorted({block for steps in held for block in steps}):
            asked = [i for i, steps in enumerate(held) if block in steps]
            said = self.reasoner.ask_many(
                [examples[i].question for i in asked],
                blocks=block,
                max_new_tokens=self.max_new_tokens,
            )
            for i, (answer,) in zip(asked, said, strict=True):
                found[i][block] = step_value(answer.text) if answer.finished else ""
        return found

    def read_patched(
        self, pairs: Sequence[Pair], sources: Sequence[Example], part: Part, block: int
    ) -> list[str]:
        partners = {
            pair.recipient.question: source.question
            for pair, source in zip(pairs, sources, strict=True)
        }
        asking = Asking(self.reasoner, block, ())
        said = asking.texts(
            list(partners), transplant(partners, part), max_new_tokens=self.max_new_tokens
        )
        return [step_value(text) for text in said]


class ProbeReader(Reader):
    """Linear probes on the finished model's states. A transplanted block has its source's states,
    so what is read after a transplant is what is read off the source, by construction.
    """

    kind = "probe"
    means = (
        "linear probes of `rim analyze` on the finished model's states; only questions that no "
        "probe was trained or chosen on count"
    )

    def __init__(self, reasoner: Reasoner, probes: Sequence[Placed], blocks: int, batch: int = 32):
        self.reasoner, self.blocks, self.batch = reasoner, blocks, batch
        self.probes = {(placed.block, placed.name): placed for placed in probes}

    def takes(self, example: Example) -> bool:
        return is_untouched(example)

    def read(self, examples: Sequence[Example], held: Sequence[Steps]) -> list[dict[int, str]]:
        found: list[dict[int, str]] = []
        for start in range(0, len(examples), self.batch):
            some = [example.question for example in examples[start : start + self.batch]]
            states_BKLD = block_states(self.reasoner, some, self.blocks).numpy()
            for states_KLD, steps in zip(states_BKLD, held[start:], strict=False):
                read = {}
                for block, number in steps.items():
                    placed = self.probes.get((block, f"step {number}"))
                    if placed is not None:
                        state_1D = states_KLD[block, placed.layer][None]
                        read[block] = placed.probe.predict(state_1D)[0]
                found.append(read)
        return found

    def read_patched(
        self, pairs: Sequence[Pair], sources: Sequence[Example], part: Part, block: int
    ) -> list[str]:
        read = self.read(sources, [{block: pair.step} for pair in pairs])
        return [row.get(block, "") for row in read]

    def label(self, step: str, block: int, number: int) -> str:
        return label_of(value_of(step), self.probes[block, f"step {number}"].kind) or ""

    def tells_values(self, block: int, number: int) -> bool:
        return self.probes[block, f"step {number}"].kind == "value"

    def agrees(self, read: str, step: str, block: int, number: int) -> bool:
        return self._knows(block, number) and read == self.label(step, block, number)

    def tells_apart(self, step: str, other: str, block: int, number: int) -> bool:
        return self._knows(block, number) and super().tells_apart(step, other, block, number)

    def _knows(self, block: int, number: int) -> bool:
        return (block, f"step {number}") in self.probes


def readers_of(
    run: Path, reasoner: Reasoner, blocks: int, *, max_new_tokens: int = 64, batch_size: int = 32
) -> list[Reader]:
    """All that a run has.

    Raises:
        ConfigError: it has none.
    """
    found: list[Reader] = []
    trained = step_stage(run)
    options = {"max_new_tokens": max_new_tokens}
    if trained is not None and trained.folder is None:
        means = "the finished model's own read-outs, which its last stage trained to say steps"
        found.append(ReadoutReader(reasoner, means, own=True, **options))
    elif trained is not None and trained.folder is not None:
        earlier = load(trained.folder, device=str(reasoner.model.device))
        means = (
            f"what the model said after stage {trained.stage.name}; answers are the finished "
            "model's, which was trained on"
        )
        found.append(ReadoutReader(earlier, means, own=False, **options))
    if (run / VALUES_FILE).exists():
        probes = read_probes(run / VALUES_FILE, fingerprint(find_model_dir(run)))
        found.append(ProbeReader(reasoner, probes, blocks, batch_size))
    if not found:
        raise ConfigError(
            f"nothing reads steps off the blocks of {run}: no stage trained read-outs of steps, "
            f"and there are no probes; rim analyze {run} DATA trains them"
        )
    return found
