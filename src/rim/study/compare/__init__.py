"""Methods side by side: what `rim compare` runs.

settings.py   a comparison's YAML
plan.py       settings -> training recipes, checked; equal budgets; test questions
recorded.py   what runs were made with, against what is asked for now
measure.py    one run: training, evaluation, controls, its JSON; latency in turns
runner.py     all runs, one by one or several processes (worker.py), continued
aggregate.py  run JSONs -> one comparison
selection.py  the paper's selection protocol
"""
