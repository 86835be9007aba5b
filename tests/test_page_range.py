"""The web page names the numbers of blocks of the training, and warns of more; no engine needed."""

from __future__ import annotations

import browser
import pytest
from browser import Browser
from stub_server import Reply, stub

from rim.deploy.serve import page_url

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.PROGRAM is None, reason="Chromium is missing (Debian: apt-get install chromium)"
    ),
]
SAID = "document.getElementById('trained').textContent"
KIND = "document.getElementById('trained').className"
RANGE = "This model was trained with up to 5 blocks."


def set_field(page: Browser, name: str, value: str) -> None:
    """As a person does: the field changes, and says so."""
    page.evaluate(f"document.getElementById({name!r}).value = {value!r}, 0")
    page.evaluate(f"document.getElementById({name!r}).dispatchEvent(new Event('input')), 0")


def test_more_blocks_than_in_training_are_warned_of_before_they_are_asked(tmp_path):
    with stub(Reply()) as server, Browser(tmp_path / "profile") as page:
        page.open(page_url(server.url, blocks=(0, 5), most_blocks=64, trained_blocks=5))
        assert (page.evaluate(SAID), page.evaluate(KIND)) == (RANGE, "soft")
        set_field(page, "slider", "6")
        assert page.evaluate(SAID).startswith(f"{RANGE} 6 is more: ")
        assert page.evaluate(KIND) == "warn"
        set_field(page, "counts", "16, 3, 6, 8")  # each is named once, in order
        assert page.evaluate(SAID).startswith(f"{RANGE} 6, 8, 16 are more: ")
        set_field(page, "slider", "5")
        assert page.evaluate(SAID).startswith(f"{RANGE} 6, 8, 16 are more: ")
        set_field(page, "counts", "0, 5")
        assert (page.evaluate(SAID), page.evaluate(KIND)) == (RANGE, "soft")
        assert server.bodies == [] and page.complaints == []


def test_an_answer_after_more_blocks_says_so(tmp_path):
    with stub(Reply()) as server, Browser(tmp_path / "profile") as page:
        url = page_url(
            server.url, question="q", blocks=(2, 5, 8), most_blocks=64, trained_blocks=5, run=True
        )
        page.open(url)
        page.wait_for("document.body.dataset.state === 'done'")
        notes = page.evaluate(
            "[...document.querySelectorAll('li')].map(r => r.querySelector('.note.warn'))"
            ".map(n => n ? n.textContent : '')"
        )
        assert notes == ["", "", "trained with up to 5"]
        # The warning is about the model: it is asked all the same.
        assert [b["chat_template_kwargs"]["blocks"] for b in server.bodies[1:]] == [2, 5, 8]


@pytest.mark.parametrize(
    ("trained", "most", "said"),
    [
        (None, None, ""),
        (0, 0, "This model was trained without memory blocks."),
        (1, 64, "This model was trained with up to 1 block."),
    ],
)
def test_the_range_is_named_only_where_it_is_known(trained, most, said, tmp_path):
    with stub(Reply()) as server, Browser(tmp_path / "profile") as page:
        blocks = (trained or 0,)
        page.open(page_url(server.url, blocks=blocks, most_blocks=most, trained_blocks=trained))
        set_field(page, "counts", "0")
        assert (page.evaluate(SAID), page.evaluate(KIND)) == (said, "soft")


def test_a_range_that_is_no_number_is_none(tmp_path):
    with stub(Reply()) as server, Browser(tmp_path / "profile") as page:
        page.open(page_url(server.url, blocks=(9,)) + "&trained=<b>5</b>")
        assert page.evaluate(SAID) == ""
