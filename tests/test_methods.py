"""Which block says what."""

from __future__ import annotations

import pytest
from conftest import EXAMPLES, stage

import rim.core.layout
from rim.core.layout import FIELDS, Trunk, build_layout, lay_out
from rim.data.examples import DataError, Example
from rim.methods import METHODS, Readout

EXAMPLE = EXAMPLES[1]  # three steps; K = 4


def said(encoder, method, **settings):
    targets = METHODS[method].readouts(EXAMPLE, stage(**settings), encoder)
    return [
        (t.after_block, encoder.tokenizer.decode(t.target_ids, skip_special_tokens=True), t.is_step)
        for t in targets
    ]


def test_next_step_alignment_is_the_papers(encoder):
    assert said(encoder, "rim", objective="steps", alignment="next_step") == [
        (1, "4+0=4", True),
        (2, "4*1=4", True),
        (3, "#### 4", False),
    ]


def test_own_step_alignment_has_one_more_block(encoder):
    assert said(encoder, "rim", objective="steps", alignment="own_step") == [
        (1, "2+2=4", True),
        (2, "4+0=4", True),
        (3, "4*1=4", True),
        (4, "#### 4", False),
    ]


def test_surplus_blocks_say_the_answer(encoder):
    settings = {"objective": "steps", "alignment": "next_step", "surplus_blocks": "answer"}
    assert said(encoder, "rim", **settings)[2:] == [(3, "#### 4", False), (4, "#### 4", False)]


def test_refinement_says_the_answer_after_every_block(encoder):
    assert said(encoder, "rim", objective="answer") == [(k, "#### 4", False) for k in (1, 2, 3, 4)]


def test_direct_and_chain_of_thought_have_one_readout_and_no_block(encoder):
    assert said(encoder, "direct", objective="answer") == [(0, "#### 4", False)]
    assert said(encoder, "cot", objective="solution") == [(0, "2+2=4\n4+0=4\n4*1=4\n#### 4", False)]


def test_an_example_without_steps_is_refused_where_steps_are_needed(encoder):
    example = Example("q", (), "1", "file, line 3")
    with pytest.raises(DataError, match=r"file, line 3: field 'steps' is empty"):
        lay_out(METHODS["rim"], example, stage(objective="steps"), encoder)
    assert lay_out(METHODS["rim"], example, stage(objective="answer"), encoder).num_readouts == 4


@pytest.mark.parametrize(
    ("question", "readouts", "message"),
    [
        ([], [Readout(0, (1,))], "no tokens"),
        ([1], [], "at least one"),
        ([1], [Readout(3, (1,))], "follows block 3"),
        ([1], [Readout(1, (1,)), Readout(1, (2,))], "two read-outs"),
    ],
)
def test_impossible_layouts_are_refused(question, readouts, message):
    with pytest.raises(ValueError, match=message):
        build_layout(Trunk.build(question, [5, 6, 7], 2), readouts)


def test_the_matrix_in_the_module_s_words_is_the_one_that_it_makes():
    written = [line.split() for line in str(rim.core.layout.__doc__).splitlines()]
    printed = {words[0]: words[1:] for words in written if words and words[0] in FIELDS}
    readouts = [Readout(1, (21, 22, 9)), Readout(2, (31, 9))]
    made = build_layout(Trunk.build([11, 12], [1, 2, 3], 2), readouts).fields_TF.T.tolist()
    assert printed == {name: list(map(str, row)) for name, row in zip(FIELDS, made, strict=True)}


def test_layout_in_numbers():
    trunk = Trunk.build([1, 2], [7, 8], 2)
    layout = build_layout(trunk, [Readout(1, (3, 0), is_step=True), Readout(2, (4, 5, 0), (9,))])
    assert layout.fields_TF.T.tolist() == [
        [1, 2, 7, 8, 7, 8, 3, 9, 4, 5],  # input_ids
        [0, 1, 2, 3, 4, 5, 4, 6, 7, 8],  # position_ids
        [0, 0, 0, 0, 0, 0, 1, 2, 2, 2],  # segment_ids
        [0, 0, 1, 1, 2, 2, 1, 2, 2, 2],  # block_ids
        [-1, -1, -1, 3, -1, -1, 0, 4, 5, 0],  # targets
        [-1, -1, -1, 0, -1, -1, 0, 1, 1, 1],  # readout_ids
        [-1] * 10,  # marks
    ]
    assert (trunk.num_blocks, layout.num_readouts, layout.num_step_readouts) == (2, 2, 1)
    assert (layout.max_position, layout.starts) == (8, (3, 7))
