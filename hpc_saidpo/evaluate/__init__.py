"""Graded rollouts of benchmarks -> accuracy with its interval, pass@k, majority vote (README, Benchmarks). Pure.

`python -m mpi4py -m hpc_saidpo.evaluate` evaluates any policy on any benchmark (`__main__.py`).
"""

from .score import accuracy, rows, votes, wilson
from .settings import HELD_OUT, Benchmark, Config, How
from .table import interval, percent, text

__all__ = [
    "HELD_OUT", "Benchmark", "Config", "How", "accuracy", "interval", "percent", "rows", "text", "votes", "wilson",
]  # fmt: skip
