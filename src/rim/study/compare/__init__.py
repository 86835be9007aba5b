"""Methods side by side: what `rim compare` runs.

settings.py   a comparison's YAML
plan.py       settings -> training recipes, checked; equal budgets; test questions
recorded.py   what runs were made with, against what is asked for now
measure.py    one run: training, evaluation, controls, its JSON; latency in turns
runner.py     all runs, one by one or several processes (worker.py), continued
aggregate.py  run JSONs -> one comparison
selection.py  the paper's selection protocol
"""

from rim.study.compare.aggregate import aggregate
from rim.study.compare.plan import make_plan
from rim.study.compare.runner import Failure, run_comparison, sum_up
from rim.study.compare.settings import Comparison, load_comparison

__all__ = [
    "Comparison",
    "Failure",
    "aggregate",
    "load_comparison",
    "make_plan",
    "run_comparison",
    "sum_up",
]
