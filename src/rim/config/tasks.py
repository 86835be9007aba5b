"""Settings of generated tasks: a class each, its name in `TaskName` and a field in `DataSource`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rim.config.base import NonNegativeInt, PositiveInt, Settings

TaskName = Literal[
    "arithmetic",
    "brackets",
    "graph_search",
    "multiplication",
    "pair_matching",
    "pointers",
    "prefix_counts",
    "relations",
    "word_problems",
]
Operation = Literal["add", "subtract", "multiply", "divide", "together"]
Wording = Literal["plain", "paraphrased", "mixed"]


class GeneratorConfig(Settings):
    """What generated tasks share; the split decides which questions may occur."""

    num_examples: PositiveInt = 2000
    split: Literal["train", "validation", "test"] = "train"
    seed: int = 0

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for low in type(self).model_fields:
            high = low.replace("min_", "max_", 1)
            if low.startswith("min_") and getattr(self, high) < getattr(self, low):
                raise ValueError(f"{high} must be >= {low}")
        return self


class ArithmeticConfig(GeneratorConfig):
    """Chains such as `3+4-5+2=` modulo `modulus`; with `start: last` written `+4-5+2:3=`, so that
    no running value is known before the question ends.
    """

    min_operations: PositiveInt = 2
    max_operations: PositiveInt = 4
    modulus: Annotated[int, Field(ge=2)] = 10
    start: Literal["first", "last"] = "first"


class GraphSearchConfig(GeneratorConfig):
    """Which of two concepts an entity is, by a path through a graph of sentences, as in ProsQA.

    `hop_mix` says how often each path length occurs: as often as in ProsQA's validation file, which
    has 3 to 6 hops, or all the same.
    """

    min_hops: PositiveInt = 3
    max_hops: PositiveInt = 6
    hop_mix: Literal["prosqa", "even"] = "prosqa"
    min_concepts: PositiveInt = 17
    max_concepts: PositiveInt = 24
    edges_per_concept: Annotated[float, Field(ge=1)] = 1.78  # sentences of the graph
    min_entities: Annotated[int, Field(ge=2)] = 2
    max_entities: Annotated[int, Field(ge=2)] = 3
    vocabulary: PositiveInt = 40  # names that concepts are drawn from

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.hop_mix == "prosqa" and not 3 <= self.min_hops <= self.max_hops <= 6:
            raise ValueError("ProsQA has 3 to 6 hops; for other lengths set hop_mix to 'even'")
        if self.min_concepts <= self.max_hops:
            raise ValueError(
                f"min_concepts must be >= max_hops + 1 = {self.max_hops + 1}: the path and the "
                "wrong alternative"
            )
        if self.vocabulary < self.max_concepts:
            raise ValueError("vocabulary must be >= max_concepts: each concept needs its name")
        return self


class MultiplicationConfig(GeneratorConfig):
    """Long multiplication, digits least significant first; a step for each digit of the second
    number.
    """

    first_digits: PositiveInt = 4
    min_second_digits: PositiveInt = 4
    max_second_digits: PositiveInt = 4


class RelationsConfig(GeneratorConfig):
    """Whom a path of relations leads to, among facts of every person and relation.

    `facts` and `question` say how they are worded, `names` whose names occur: "new" ones are in no
    question with "familiar" ones, `pool` from how many of them people are drawn (causal protocols
    need questions about the same people). `step` is the fact of a hop, or only the name that it
    gives.
    """

    min_hops: PositiveInt = 2
    max_hops: PositiveInt = 4
    min_people: Annotated[int, Field(ge=3)] = 6
    max_people: PositiveInt = 6
    relations: Annotated[tuple[str, ...], Field(min_length=1)] = ("best friend", "teacher")
    shape: Literal["permutation", "ring"] = "permutation"
    distractors: Annotated[int, Field(ge=0, le=12)] = 2  # facts that are no relation
    names: Literal["familiar", "new"] = "familiar"
    pool: PositiveInt | None = None  # all
    facts: Wording = "plain"
    question: Wording = "plain"
    step: Literal["fact", "name"] = "fact"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min_people <= self.max_hops:
            raise ValueError(
                f"min_people must be >= max_hops + 1 = {self.max_hops + 1}: nobody is met twice"
            )
        if len(set(self.relations)) < len(self.relations):
            raise ValueError("relations must be different from each other")
        return self


class WordProblemsConfig(GeneratorConfig):
    """Who has how many, one sentence a person, in shuffled order, among people who do not matter.

    All quantities lie between 1 and `largest_number`.
    """

    min_steps: PositiveInt = 2
    max_steps: PositiveInt = 5
    distractors: NonNegativeInt = 2
    largest_number: Annotated[int, Field(ge=2)] = 100
    operations: Annotated[tuple[Operation, ...], Field(min_length=1)] = (
        "add",
        "subtract",
        "multiply",
        "divide",
        "together",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if set(self.operations) == {"together"}:
            raise ValueError("operations need one beside 'together', which adds two known numbers")
        return self


class PointersConfig(GeneratorConfig):
    """Arrows between letters, to be followed from a start; `start: last` asks behind the table."""

    nodes: Annotated[int, Field(ge=2, le=26)] = 8
    min_hops: PositiveInt = 2
    max_hops: PositiveInt = 4
    start: Literal["first", "last"] = "last"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.max_hops >= self.nodes:
            raise ValueError("nodes must be > max_hops: else a walk comes back to its start")
        return self


class BracketsConfig(GeneratorConfig):
    """Brackets such as `(3+4)(5*2)=`, each modulo `modulus`, their results put together at the
    end.
    """

    min_brackets: PositiveInt = 2
    max_brackets: PositiveInt = 4
    modulus: Annotated[int, Field(ge=2)] = 10
    signs: Annotated[tuple[Literal["+", "-", "*"], ...], Field(min_length=1)] = ("+", "-", "*")
    combine: Literal["sum", "largest"] = "sum"


class PrefixCountsConfig(GeneratorConfig):
    """Ones in a string of bits modulo `modulus` (2: parity), a step for each chunk of bits."""

    chunk: PositiveInt = 4
    min_chunks: PositiveInt = 4
    max_chunks: PositiveInt = 6
    modulus: Annotated[int, Field(ge=2)] = 2


class PairMatchingConfig(GeneratorConfig):
    """Items that add up to a target digit by digit: is there a pair, how many, or which is the
    query's.
    """

    min_items: Annotated[int, Field(ge=2)] = 4
    max_items: PositiveInt = 6
    digits: PositiveInt = 2
    modulus: Annotated[int, Field(ge=2, le=10)] = 10
    ask: Literal["any", "count", "which"] = "any"
    max_pairs: PositiveInt = 2  # under "count"
    target: Literal["zero", "first", "last"] = "zero"
    steps: Literal["counts", "partners"] = "counts"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.ask == "count" and 2 * self.max_pairs > self.min_items:
            raise ValueError("min_items must be >= 2 * max_pairs: a pair has two items of its own")
        if self.ask == "which" and (self.target != "zero" or self.steps != "counts"):
            raise ValueError("ask: which has a query instead of a target, and counts as its steps")
        return self
