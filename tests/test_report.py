"""The report: one page from whatever is there, escaped, and drawn in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import browser
import pytest
from browser import Browser
from export_models import make_run
from test_cli import plain_console, rim_command, work  # noqa: F401

from rim.report import style
from rim.report.charts import lines_chart
from rim.report.page.build import build_page, write_report
from rim.report.page.compared import _control_line, comparison_sections
from rim.report.page.gather import Material, Run, gather, kind_of, main_protocols
from rim.report.page.headline import headline
from rim.report.page.inside import controls as controls_section
from rim.report.page.sections import run_sections
from rim.report.verdict import verdict

ROOT = Path(__file__).parents[1]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202e\x00{{ 7*7 }}"


def page_of(*paths, title="t"):
    return build_page(gather(paths), title, "0")


def hostile_run(folder: Path) -> Path:
    """A run whose every text wants to be markup."""
    (folder / "evaluations").mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps({"seed": 0, "method": "rim", "name": "</pre>"}))
    share = {"right": 1, "total": 2, "accuracy": 0.5, "low": 0.1, "high": 0.9}
    record = {
        "run": HOSTILE,
        "data": {"name": HOSTILE, "examples": 2, "hash": "h"},
        "summary": {
            "questions": 2,
            "blocks": 2,
            "final": share,
            "any_block": share,
            "per_block": [share | {"block": 1}, share | {"block": 2}],
            # Rounding may put an end of an interval on the wrong side.
            "by_steps": [share | {"steps": 2, "accuracy": 1.0, "high": 0.9999999999999999}],
        },
    }
    file = folder / "evaluations" / "e.json"
    file.write_text(json.dumps(record))
    wrong = [
        {
            "question": f"{HOSTILE} {i}",
            "gold": HOSTILE,
            "predicted": "" if i % 2 else HOSTILE,
            "text": HOSTILE,
            "right_after_blocks": [1] if i % 3 == 0 else [],
            "finished": bool(i % 2),
        }
        for i in range(20)
    ]
    (folder / "evaluations" / "e-wrong.jsonl").write_text("\n".join(map(json.dumps, wrong)))
    verdict = {"name": f"x, {HOSTILE}", "line": HOSTILE, "from": 0.5, "to": 0.2, "p": 0.01}
    controls = {"run": "x", "controls": [], "verdicts": [verdict], "note": HOSTILE}
    (folder / "controls.json").write_text(json.dumps(controls))
    metrics = [
        {"stage": HOSTILE, "step": 10 * i, "token_loss": 1 / i, "eval_accuracy": i / 9}
        for i in range(1, 9)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, metrics)) + '\n{"half')
    return folder


@pytest.mark.slow
def test_hostile_text_stays_text(tmp_path):
    page = page_of(hostile_run(tmp_path / "run"), title=HOSTILE)
    assert "<img" not in page and "alert(1)</script>" not in page
    assert len(re.findall(r"<script", page)) == 1
    assert "\u202e" not in page and "\x00" not in page
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", page, flags=re.DOTALL)[0]


@pytest.mark.slow
def test_nothing_is_fetched(tmp_path):
    page = page_of(hostile_run(tmp_path / "run"), ROOT / "results" / "compare_arithmetic.json")
    attributes = re.findall(r'(?:src|href|action)="([^"]*)"', page)
    assert attributes and all(a.startswith(("#", "data:")) for a in attributes)
    assert "@import" not in page and "url(http" not in page


def test_what_is_missing_is_said_with_its_command(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{method: rim, memory: {blocks: 3}}")
    page = page_of(tmp_path / "run")
    for command in ("train", "eval", "analyze", "controls", "explain"):
        assert f"rim {command}" in page
    assert "has not been evaluated yet" in page


@pytest.mark.slow
def test_broken_files_are_named_and_the_rest_is_shown(tmp_path):
    run = hostile_run(tmp_path / "run")
    (run / "broken.json").write_text("{")
    (tmp_path / "odd.json").write_text("[1]")
    material = gather([run, tmp_path / "odd.json"])
    said = " ".join(material.problems)
    assert "broken.json" in said and "odd.json" in said and "metrics.jsonl" in said
    assert "broken.json" in build_page(material, "t", "0")


def test_what_a_run_lacks_stands_in_one_place(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{method: rim, memory: {blocks: 3}}")
    page = page_of(tmp_path / "run")
    assert page.count("Not here yet") == 2, "in the contents, and once as a section"
    assert "Learning curves" not in re.findall(r"<h3>(.*?)</h3>", page)


@pytest.mark.slow
def test_transplants_of_several_runs_are_shown_with_their_calls():
    page = page_of(ROOT / "results" / "blind_share_transplant.json")
    runs = json.loads((ROOT / "results" / "blind_share_transplant.json").read_text())["runs"]
    assert page.count("Parts of its blocks exchanged between questions") == len(runs)
    held = sum(v["holds"] for run in runs for v in run["verdicts"] if v["aim"] == "answer")
    assert page.count("The blocks carry the answer.") == held
    assert page.count(">answer follows the value<") == len(runs)
    assert "rim controls RUN DATA --protocol interchange" in page


@pytest.mark.slow
def test_a_comparison_says_what_it_compares_to_a_stranger():
    page = page_of(ROOT / "results" / "compare_arithmetic.json")
    for text in ("chain of thought: writes its steps", "chains such as 3+4-5=", "over 3 seeds"):
        assert text in page
    # The seeds of this control differ, so that its mean alone would mislead.
    assert "Seed by seed: from 97.9 to 19.2, 98.4 to 19.3, 94.6 to 96.7 %." in page
    assert "It is worse than cot by 3.0 points" in page


def test_a_control_with_fewer_seeds_so_far_is_paired_by_seed():
    shares = {seed: {"accuracy": seed / 10} for seed in (1, 2, 3)}
    methods = {"rim": {"seeds": [1, 2, 3], "per_seed": list(shares.values())}}
    methods["c"] = {"seeds": [1, 3], "per_seed": [shares[1], shares[3]]}
    verdict = {"name": "c instead of rim", "line": "x", "p": 1.0}
    line = _control_line(verdict, methods)
    assert line == "x. Seed by seed: from 10.0 to 10.0, 30.0 to 30.0 %."


def test_the_headline_calls_a_method_that_is_as_good_neither_better_nor_worse():
    result = json.loads((ROOT / "results" / "compare_arithmetic.json").read_text())
    methods = result["tasks"]["arithmetic"]["methods"]
    methods["cot"]["per_seed"] = methods["rim"]["per_seed"]
    lines = headline(Material(comparisons=[result]))
    assert "As many of its answers are right as of cot." in lines
    assert not any(line.startswith("It is worse") for line in lines)


def test_a_page_shows_the_controls_of_the_trained_number_of_blocks_and_rises_as_well():
    def controls(blocks, *moves):
        verdicts = [
            {"name": f"rim, {name}", "p": p, "from": a, "to": b, "line": f"{name} with {blocks}"}
            for name, p, a, b in moves
        ]
        data = {"examples": 9, "name": "test.jsonl"}
        return {"verdicts": verdicts, "settings": {"blocks": blocks}, "data": data}

    trained = controls(4, ("shuffled", 0.001, 0.9, 0.2), ("swapped", 0.01, 0.5, 0.9))
    run = Run("r", Path("r"), config={"method": "rim", "memory": {"blocks": 4}})
    run.results["controls"] = [trained, controls(8, ("shuffled", 0.9, 0.5, 0.5))]
    lines = headline(Material(runs=[run]))
    assert (
        "Its accuracy surely falls under shuffled (4 blocks, 9 questions of test.jsonl)." in lines
    )
    assert "Its accuracy surely rises under swapped (4 blocks, 9 questions of test.jsonl)." in lines
    shown = controls_section(run).lines
    assert "shuffled with 4" in shown and "Asked with 4 blocks, 9 questions of test.jsonl." in shown
    transplant = {"protocol": "transplant", "verdicts": []}
    asked = [transplant | {"settings": {"blocks": k}} for k in (4, 8)]
    run.results["protocol"] = asked
    assert main_protocols(run) == {"transplant": asked[0]}


@pytest.mark.parametrize(
    ("moved", "alone", "said"),
    [
        ((0.4, 0.98, 0.97), 0.1, "97.0 % are right, 98.0 % with it in sight: the blocks hold an "),
        ((0.4, 0.98, 0.97), None, "98.0 % with it in sight: the blocks hold an answer."),
        ((0.4, 0.98, 0.97), 0.521, "but are not its only source, since the question alone gives"),
        ((0.001, 0.98, 0.1), 0.521, "10.0 % are right, 98.0 % with it in sight."),
        ((0.4, 0.12, 0.11), 0.1, "11.0 % are right, 12.0 % with it in sight."),  # it guesses
    ],
)
def test_the_summary_says_what_the_blocks_alone_can_answer(moved, alone, said):
    p, before, after = moved
    name = "r, question hidden from the read-out"
    control = {"name": name, "p": p, "from": before, "to": after, "line": "-"}
    run = Run("r", Path("r"), config={"method": "rim"})
    run.results["controls"] = [{"verdicts": [control]}]
    if alone is not None:
        answer = {"aim": "answer", "holds": False, "failing": ["competitor"]}
        answer |= {"competitor": {"all": {"the question alone": alone}}}
        run.results["protocol"] = [{"protocol": "transplant", "verdicts": [answer]}]
    (line,) = [li for li in headline(Material(runs=[run])) if li.startswith("With the question hi")]
    assert said in line and ("only source" in line) == ("only source" in said)


def test_a_run_s_curves_are_shown_and_broken_records_of_them_are_told(tmp_path):
    rows = [{"stage": "one", "step": s, "eval_accuracy": a} for s, a in ((5, 0.1), (10, 0.2))]
    rows += [{"stage": "one", "step": 5, "eval_accuracy": 0.3, "token_loss": 1.0}]
    rows += [{"stage": "two\u2028lines", "step": 10, "token_loss": 2.0}]
    rows += [{"stage": 3, "step": 5}, {"eval_accuracy": 0.9}, {"stage": "two", "step": "5"}, [1]]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"half')
    (tmp_path / "config.yaml").write_text("method: rim\n")
    material = gather([tmp_path])
    assert material.problems == [f"{tmp_path / 'metrics.jsonl'} has a broken line"]
    (run,) = material.runs
    (section,) = [s for s in run_sections(run) if s.id == "learning"]
    assert section.lines == ["Validation accuracy ended at 20.0 %."]
    ((figure, caption),) = section.figures
    assert figure.startswith("<svg ") and 'class="chart"' in figure and "var(--muted)" in figure
    for name in ("one", "two", "training", "validation accuracy, %", "loss a token"):
        assert name in figure, name
    assert figure.count("stroke-dasharray") >= 2, "where the second stage begins, in both parts"
    assert "Vertical lines" in caption


def test_a_result_of_one_of_several_runs_of_a_name_stands_by_itself(tmp_path):
    folders = [tmp_path / task / "rim-seed0" for task in ("one", "two")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("method: rim\n")
    file = tmp_path / "protocols.json"
    protocol = {"run": "rim-seed0", "protocol": "transplant", "verdicts": [], "settings": {}}
    protocol |= {"task": "arithmetic", "data": {}}
    file.write_text(json.dumps({"protocol": "transplant", "runs": [protocol]}))
    material = gather([*folders, file])
    assert any("so are 2 of these" in problem for problem in material.problems)
    named = [run for run in material.runs if run.results.get("protocol")]
    assert [run.path for run in named] == [Path("RUN")]


def evaluated(folder: Path, name: str, blocks: int, when: str, wrong: list[str]) -> None:
    share = {"right": 1, "total": 2, "accuracy": 0.5, "low": 0.1, "high": 0.9}
    summary = {"questions": 2, "blocks": blocks, "final": share}
    record = {"run": folder.name, "data": {"name": name, "examples": 2, "hash": "h"}}
    record |= {"summary": summary, "environment": {"time_utc": when}}
    file = folder / "evaluations" / f"{name}-k{blocks}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))
    rows = [
        {"question": q, "gold": "1", "predicted": "2", "text": "2", "right_after_blocks": []}
        | {"finished": True}
        for q in wrong
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    file.with_name(f"{file.stem}-wrong.jsonl").write_text("".join(lines))


def test_wrong_answers_are_those_of_the_evaluation_that_the_page_shows(tmp_path):
    folder = tmp_path / "qwen2.5-lora"
    odd = "two\u2028lines\x85of Unicode"
    evaluated(folder, "test", 3, "2026-01-02T00:00:00+00:00", [odd, "second?"])
    (folder / "config.yaml").write_text("method: rim\nmemory: {blocks: 3}\n")
    # Later, and copied earlier: by what it says of itself.
    evaluated(folder, "test", 1, "2026-01-03T00:00:00+00:00", ["with one block?"])
    evaluated(folder, "old", 3, "2026-01-01T00:00:00+00:00", ["of old?"])
    material = gather([folder])
    assert not material.problems
    (section,) = [s for s in run_sections(material.runs[0]) if s.id == "wrong"]
    assert [row["question"] for row in section.extra["wrong"]] == [odd, "second?"]
    assert section.lines == ["Questions of test, asked with 3 blocks."]
    write_report([folder], tmp_path / "page.html", "0")
    assert "<title>qwen2.5-lora</title>" in (tmp_path / "page.html").read_text()


def test_a_result_of_another_training_is_not_attached_to_a_run_of_its_name(tmp_path):
    folder = tmp_path / "demo-seed1" / "rim"
    evaluated(folder, "test", 3, "2026-01-02T00:00:00+00:00", [])
    (folder / "config.yaml").write_text("method: rim\n")
    (folder / "environment.json").write_text(json.dumps({"time_utc": "1", "data": {}}))
    loose = json.loads((folder / "evaluations" / "test-k3.json").read_text())
    for training, runs in (({"time_utc": "1", "data": {}}, 1), ({"time_utc": "0", "data": {}}, 2)):
        file = tmp_path / "loose.json"
        file.write_text(json.dumps(loose | {"training": training}))
        material = gather([folder, file])
        assert len(material.runs) == runs
        assert bool(material.problems) == (runs == 2)


def test_runs_of_one_name_are_told_apart_and_foreign_files_are_named(tmp_path):
    for parent in ("demo-seed0", "demo-seed1"):
        (tmp_path / parent / "rim").mkdir(parents=True)
        (tmp_path / parent / "rim" / "config.yaml").write_text("method: rim\n")
    (tmp_path / "demo-seed1" / "other").mkdir()
    (tmp_path / "demo-seed1" / "other" / "config.yaml").write_text("memory: 4G\n")
    material = gather([tmp_path / "demo-seed0", tmp_path / "demo-seed1"])
    labels = [run.label for run in material.runs]
    assert labels == ["demo-seed0/rim", "other", "demo-seed1/rim"]
    assert [p for p in material.problems if "it is no recipe" in p]
    assert "demo-seed1/rim" in build_page(material, "t", "0").replace("<wbr>", "")


def test_what_is_better_is_said_of_the_seeds_that_both_have():
    result = json.loads((ROOT / "results" / "compare_arithmetic.json").read_text())
    methods = result["tasks"]["arithmetic"]["methods"]
    # cot has its first seed only, where it is worse, though its mean is above that of all of rim's.
    rim, cot = (methods[n]["per_seed"] for n in ("rim", "cot"))
    rim[0]["accuracy"], rim[1]["accuracy"], cot[0]["accuracy"] = 1.0, 0.5, 0.99
    methods["cot"] |= {"seeds": methods["cot"]["seeds"][:1], "per_seed": cot[:1]}
    methods["cot"]["final"]["mean"] = 1.0
    lines = headline(Material(comparisons=[result]))
    better = next(line for line in lines if line.startswith("It is better"))
    assert "cot by 1.0 points" in better
    assert "Not with the same seeds yet: cot; compared where both have one." in lines
    assert verdict(result)["arithmetic"][0].endswith("1 to 3 seeds.")
    assert "over 1 to 3 seeds" in " ".join(comparison_sections(result)[0].lines)


def test_every_method_and_task_has_words():
    from rim.data.sources import GENERATORS
    from rim.data.tasks import READERS
    from rim.methods import BUILT_IN
    from rim.report.page.words import METHODS, TASKS, UNREAD

    assert set(METHODS) == set(BUILT_IN)
    assert set(TASKS) == set(GENERATORS)
    assert set(TASKS) - set(READERS) == UNREAD


def test_compact_pictures_say_the_same():
    svg = style.render(
        lambda figure: figure.add_subplot().text(0.5, 0.5, "1.23456 -- <b>"), (3, 2), "t"
    ).decode()
    assert "1.23456" in svg and "&lt;b&gt;" in svg and "rotate(-0" not in svg
    assert not re.search(r'="[^"]*\.\d{3}', svg) and len(svg) < 12_000


def test_no_result_at_all_is_a_page_too(tmp_path):
    assert "nothing to report yet" in page_of(tmp_path)


@pytest.mark.parametrize("file", sorted((ROOT / "results").glob("*.json")), ids=lambda p: p.name)
def test_every_committed_result_is_known_or_named(file):
    material = gather([file])
    known = kind_of(json.loads(file.read_text())) is not None
    assert known == (not material.problems)


def test_charts_have_words_and_the_page_s_own_ink():
    lines = [{"name": "<a>", "x": [1, 2], "y": [10, 90]}, {"name": "b", "x": [1, 2], "y": [20, 3]}]
    svg = lines_chart(lines, 'T "quoted" <b>', "x", "y")
    assert 'role="img"' in svg and "&lt;b&gt;" in svg and "<b>" not in svg
    assert "var(--ink)" in svg and "#1f2933" not in svg


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, plain_tokenizer):
    """A random model, looked at by every command."""
    folder = tmp_path_factory.mktemp("report") / "run"
    make_run("gpt2", plain_tokenizer, folder)
    data = folder.parent / "data.jsonl"
    rows = [
        {"question": f"{i}+1?", "steps": [f"{i}+1={i + 1}"], "answer": str(i % 3)}
        for i in range(120)
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    short = ("--max-new-tokens", 3)
    return folder, data, short


@pytest.mark.skipif(
    browser.PROGRAM is None, reason="Chromium is missing (Debian: apt-get install chromium)"
)
@pytest.mark.serve
def test_the_page_in_a_browser(whole_run, tmp_path):
    run, data, short = whole_run
    rim_command("eval", run, data, *short, "--select", "all", "--calibrate")
    rim_command("analyze", run, data, *short)
    rim_command("controls", run, data, *short, "--limit", 20, "--out", run / "controls.json")
    hostile = hostile_run(tmp_path / "hostile")
    comparison = ROOT / "results" / "compare_arithmetic.json"
    out = tmp_path / "report.html"
    assert str(out) in rim_command("report", run, hostile, comparison, "--out", out)
    for width, dark in ((1280, False), (390, True)):
        with Browser(tmp_path / f"profile{width}", width, 900, dark) as page:
            page.open(out.as_uri())
            page.wait_for("document.querySelectorAll('.tools').length >= 2")
            assert page.complaints == []
            drawn = page.evaluate(
                "[...document.querySelectorAll('svg.chart')].map(s => s.getBoundingClientRect())"
                ".map(r => Math.min(r.width, r.height))"
            )
            assert len(drawn) >= 15 and min(drawn) > 100
            # Wide things scroll in their own frames, never the page.
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            ink = page.evaluate("getComputedStyle(document.body).color")
            assert (ink == "rgb(230, 234, 238)") == dark
    with Browser(tmp_path / "profile", 1000, 900) as page:
        page.open(out.as_uri())
        page.evaluate(
            "window.pager = [...document.querySelectorAll('.pager')]"
            ".find(p => p.dataset.filter && p.textContent.includes('alert'))"
        )
        visible = "[...pager.querySelectorAll('.item')].filter(i => !i.hidden).length"
        assert page.evaluate(visible) == 8
        page.evaluate("pager.querySelector('select').focus()")
        choose = "(v => { const s = pager.querySelector('select'); s.value = v;"
        choose += " s.dispatchEvent(new Event('input')); })"
        page.evaluate(f"{choose}('some')")
        assert page.evaluate(visible) == 7
        page.evaluate(f"{choose}('all')")
        page.evaluate("pager.querySelector('input').focus()")
        page.type("} 13")
        assert page.evaluate(visible) == 1
        page.evaluate("pager.querySelector('input').value = ''")
        page.evaluate(f"{choose}('all')")
        page.evaluate("pager.querySelectorAll('button')[1].focus()")
        page.key("ArrowRight", 39)
        assert "2 of 3" in page.evaluate("pager.querySelector('.tools').textContent")
        assert page.complaints == []
