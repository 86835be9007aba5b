"""One run in a process of its own, started by `rim.study.compare.runner` only.

`python -m rim.study.compare.worker COMPARISON NAME THREADS`, with NAME as in `PlannedRun.name`. Its
standard input is a pipe that the parent holds open: when that ends, the parent is gone, even by
kill -9, and the worker ends too. Two processes can so never write into one run folder after a
restart.
"""

from __future__ import annotations

import os
import sys
import threading

import torch
from rich.console import Console

from rim.config import ConfigError
from rim.data.examples import DataError
from rim.study.compare.measure import perform
from rim.study.compare.plan import make_plan
from rim.study.compare.settings import load_comparison
from rim.train.failures import STOPPED
from rim.train.stopping import TerminatedError

#: Exit code of a worker whose parent is gone; a crash has 1.
PARENT_GONE = 75


def main(recipe: str, name: str, threads: str) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(int(threads))
    settings = load_comparison(recipe)
    run = next(run for run in make_plan(settings) if run.name == name)
    try:
        perform(settings, run, Console(width=100))
    except (ConfigError, DataError, *STOPPED) as error:
        sys.exit(str(error))
    except TerminatedError as error:
        print(error)
        sys.exit(error.exit_code)


def _end_with_the_parent() -> None:
    # os.read, not sys.stdin: a thread that holds its lock would break the interpreter's own end.
    while os.read(0, 1):
        pass
    os._exit(PARENT_GONE)


if __name__ == "__main__":
    main(*sys.argv[1:])
