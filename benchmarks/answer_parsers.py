"""Where the regular expression of `rim lm-eval --scoring regex` judges unlike our answer parser.

    python benchmarks/answer_parsers.py test.jsonl [MORE ...] --out results/answer_parsers.json

Every gold answer of the files is written in the forms below, and judged against itself and against
a wrong gold answer (one more). The last line is one JSON object: per form the cases, and those in
which the two disagree. A tokenizer, a model or lm_eval are not needed: the expression is applied as
its regex filter and exact_match do.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from importlib import resources
from pathlib import Path

import yaml

from rim.data.sources import data_hash, open_file
from rim.infer.answers import is_right
from rim.results import environment, write_json

#: What a model may write when it means the answer. The marker is that of our default templates.
FORMS: dict[str, str] = {
    "the answer alone": "{a}",
    "behind the marker": "#### {a}",
    "steps, then the marker": "<<3+4=7>>\n#### {a}",
    "a sentence": "The answer is {a}.",
    "a unit behind it": "#### {a} dollars",
    "a currency sign": "#### ${a}",
    "needless decimals": "#### {a}.00",
    "more text behind the answer": "#### {a} because 3 + 4 = 7",
    "another question behind it": "#### {a}\nQuestion 2",
    "steps after ;": "3+4=7;{a};",
}


def one_more(gold: str) -> str:
    """Another number than a gold answer; any word for one that is a text."""
    try:
        return str(Decimal(gold.replace(",", "")) + 1)
    except InvalidOperation:
        return "nothing"


def regex_judge() -> Callable[[str, str], bool]:
    shared = resources.files("rim.deploy.harness").joinpath("tasks", "_regex.yaml")
    task = yaml.safe_load(shared.read_text(encoding="utf-8"))
    pattern = re.compile(task["filter_list"][0]["filter"][0]["regex_pattern"])
    ignored = task["metric_list"][0]["regexes_to_ignore"]

    def clean(text: str) -> str:
        for expression in ignored:
            text = re.sub(expression, "", text)
        return text

    def judge(text: str, gold: str) -> bool:
        found = pattern.findall(text)
        return clean(found[-1].strip() if found else "[invalid]") == clean(gold)

    return judge


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", help="data files, any that rim eval reads")
    parser.add_argument("--out", type=Path, help="result JSON")
    args = parser.parse_args()
    judge = regex_judge()
    files = {path.name: open_file(path) for path in args.data}
    golds = [example.answer for examples in files.values() for example in examples]
    rows = {}
    for form, template in FORMS.items():
        other, cases = [], 0
        for gold in golds:
            if template.endswith(".00") and not gold.isdigit():
                continue
            text = template.replace("{a}", gold)
            wrong = one_more(gold)
            for expected in (gold, wrong):
                cases += 1
                ours, regex = is_right(text, expected), judge(text, expected)
                if ours != regex:
                    other.append({"text": text, "gold": expected, "ours": ours, "regex": regex})
        rows[form] = {
            "cases": cases,
            "disagreements": len(other),
            "regex_misses": sum(case["ours"] for case in other),
            "first": other[:3],
        }
    result = {
        "data": {n: {"answers": len(e), "hash": data_hash(e)} for n, e in files.items()},
        "forms": rows,
        "environment": environment(),
    }
    if args.out:
        write_json(args.out, result)
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
