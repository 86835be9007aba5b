"""People and relations: every solution is checked by a solver that reads the question alone."""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter

import pytest
import question_files
import relations_shortcuts
from pydantic import ValidationError

from rim.config import RelationsConfig
from rim.data.examples import DataError, Example
from rim.data.tasks.drawing import PEOPLE, split_of
from rim.data.tasks.relations import NAMES

FACT_WORDINGS = (
    r"(?P<who>\w+)'s (?P<relation>.+) is (?P<other>\w+)\.",
    r"The (?P<relation>.+) of (?P<who>\w+) is (?P<other>\w+)\.",
    r"(?P<other>\w+) is the (?P<relation>.+) of (?P<who>\w+)\.",
)


examples_of = functools.partial(question_files.examples_of, "relations")


def read(question):
    """All facts, sentences that are none, and the path asked for, in whatever words."""
    *sentences, ask = re.findall(r"\w.*?[.?](?= |$)", question)
    facts, others = {}, []
    for sentence in sentences:
        found = next((m for w in FACT_WORDINGS if (m := re.fullmatch(w, sentence))), None)
        if found is None:
            others.append(sentence)
            continue
        assert (found["who"], found["relation"]) not in facts
        facts[found["who"], found["relation"]] = found["other"]
    if possessive := re.search(r"(?:Who is|What is the name of) (\w+'s .+)\?", ask):
        start, *relations = possessive[1].split("'s ")
    else:
        *relations, start = re.search(r"(?:Who is|Name) the (.+)[.?]", ask)[1].split(" of ")
        relations = [relation.removeprefix("the ") for relation in reversed(relations)]
    return facts, others, start, relations


def test_a_pool_of_names_makes_questions_about_the_same_people():
    knobs = ("pool=5", "min_people=5", "max_people=5", "max_hops=3", "shape=ring")
    examples = examples_of(*knobs, "relations=[best friend]", num_examples=60)
    for example in examples:
        facts, _, _, _ = read(example.question)
        assert {who for who, _ in facts} == set(NAMES["familiar"][:5])
    with pytest.raises(DataError, match="max_people must be <= 4"):
        examples_of("pool=4", "min_people=5", "max_people=5", "max_hops=3")


def check(example):
    facts, others, person, relations = read(example.question)
    path = [person]
    for relation in relations:
        path.append(facts[path[-1], relation])
    assert example.answer == path[-1]
    assert len(set(path)) == len(path)
    expected = [
        f"{who}'s {relation} is {other}."
        for (who, other), relation in zip(itertools.pairwise(path), relations, strict=True)
    ]
    assert list(example.steps) in (expected, path[1:])
    for relation in {relation for _, relation in facts}:  # one to one, nobody their own
        pairs = [(who, other) for (who, of), other in facts.items() if of == relation]
        assert sorted(who for who, _ in pairs) == sorted(other for _, other in pairs)
        assert all(who != other for who, other in pairs)
    return facts, others, relations


WORDINGS = ("plain", "paraphrased", "mixed")


@pytest.mark.parametrize("shape", ["permutation", "ring"])
@pytest.mark.parametrize(("facts", "question"), [*itertools.product(WORDINGS, WORDINGS)])
def test_relations_have_one_answer_by_the_path_asked_for(shape, facts, question):
    overrides = (f"shape={shape}", f"facts={facts}", f"question={question}")
    for example in examples_of(*overrides, num_examples=60):
        found, others, relations = check(example)
        assert {relation for _, relation in found} == {"best friend", "teacher"} >= set(relations)
        assert len(found) == 12
        assert len(others) == 2
        assert all(re.fullmatch(r"\w+ likes \w+\.", other) for other in others)


def test_relations_knobs_act():
    overrides = ["min_hops=5", "max_hops=6", "min_people=7", "max_people=8", "distractors=0"]
    overrides += ["relations=[boss,coach,cousin]", "names=new", "step=name"]
    people, hops, asked = Counter(), Counter(), set()
    for example in examples_of(*overrides, num_examples=80):
        facts, others, relations = check(example)
        names = {who for who, _ in facts}
        people[len(names)] += 1
        hops[len(example.steps)] += 1
        asked.update(relations)
        assert not others
        assert names <= set(NAMES["new"])
        assert all(step in names for step in example.steps)
    assert asked == {"boss", "coach", "cousin"}
    assert hops == {5: 40, 6: 40}
    assert set(people) == {7, 8}


def test_a_ring_comes_back_to_its_start_after_everybody():
    for example in examples_of("shape=ring", "min_people=5", "max_people=7", num_examples=30):
        facts, *_ = check(example)
        for relation in ("best friend", "teacher"):
            start = person = next(iter(facts))[0]
            met = 0
            while met == 0 or person != start:
                person, met = facts[person, relation], met + 1
            assert met == len(facts) / 2


def test_new_names_are_in_no_question_with_familiar_ones():
    assert not set(NAMES["new"]) & set(PEOPLE)
    assert all(len(set(names)) == len(names) for names in NAMES.values())


def test_wordings_vary_and_steps_do_not():
    examples = examples_of("facts=mixed", "question=mixed", num_examples=100)
    assert {e.question.rpartition(". ")[2].split(" ")[0] for e in examples} >= {"Who", "What"}
    assert any("The teacher of" in e.question for e in examples)
    assert any("is the teacher of" in e.question for e in examples)
    assert all("'s " in step for e in examples for step in e.steps)


def test_a_question_in_other_words_belongs_to_the_same_split():
    for example in examples_of("facts=mixed", "question=mixed", split="test"):
        facts, others, start, relations = read(example.question)
        plain = [f"{who}'s {relation} is {other}." for (who, relation), other in facts.items()]
        ask = "'s ".join([start, *relations])
        assert split_of(" ".join(sorted([*plain, *others, ask]))) == "test"


# Rules that leave out people who are rarely the answer.
ELIMINATIONS = ("neither asked about nor one hop away", "leads to who is asked about")


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), ("shape=ring",), ("max_people=8", "max_hops=5")])
def test_no_shortcut_answers_relations(overrides):
    """None is far above a guess among all but the person asked about."""
    examples = examples_of(*overrides, num_examples=2000)
    right = {
        name: relations_shortcuts.share_right(shortcut, examples)
        for name, shortcut in relations_shortcuts.SHORTCUTS.items()
    }
    guess = right["anybody but who is asked about"]
    assert 0.15 < guess < 0.21  # five to seven others
    for name, share in right.items():
        assert share < guess + (0.09 if name in ELIMINATIONS else 0.03), name


def test_a_shortcut_that_exists_is_seen():
    question = (
        "Anna's boss is Ben. Ben's boss is Carl. Carl likes tea. Anna's coach is Ben. "
        "Who is Anna's boss's boss?"
    )
    right = {
        name: relations_shortcuts.share_right(shortcut, [Example(question, (), "Carl")])
        for name, shortcut in relations_shortcuts.SHORTCUTS.items()
    }
    assert right["neither asked about nor one hop away"] == 1
    assert right["named least often"] == 0.5  # Anna and Carl, twice each
    assert right["anybody"] == pytest.approx(1 / 3)
    assert right["one hop away, by the last relation"] == 0


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"max_hops": 1}, "max_hops must be >= min_hops"),
        ({"min_people": 4}, r"min_people must be >= max_hops \+ 1 = 5"),
        ({"max_people": 5}, "max_people must be >= min_people"),
        ({"relations": ["boss", "boss"]}, "different from each other"),
        ({"relations": []}, "at least 1 item"),
        ({"distractors": 13}, "less than or equal to 12"),
    ],
)
def test_contradicting_knobs_are_refused(knobs, message):
    with pytest.raises(ValidationError, match=message):
        RelationsConfig(**knobs)


def test_more_people_than_names_are_refused():
    with pytest.raises(DataError, match="max_people must be <= 25, there are no more new names"):
        examples_of("names=new", "max_people=26")
