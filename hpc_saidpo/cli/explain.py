"""Explain why an iteration drew a question, and the result: its rollouts and its pair.

    hpc-saidpo explain runs/demo --iteration 1 --question numbers-17

Shows the question's cluster with its counts and interval, its weight, its chance to be drawn, its difficulty, its
rollouts, and its pair or the reason why it has none. The question may be any one that the iteration probed or explored.
Exits 0, or 2 when there is no such run, iteration or question.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError
from ..report.explain import explain


def main(arguments: Sequence[str]) -> int:
    """Print the explanation of a question. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo explain", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--iteration", type=int, required=True, help="number of the iteration; the first one is 0")
    parser.add_argument("--question", required=True, help="id of the question in the pool")
    parsed = parser.parse_args(arguments)
    try:
        for subject, text in explain(parsed.run, parsed.iteration, parsed.question):
            print(f"{subject:12s}{text}")
    except RunError as error:
        print(f"explain: {error}", file=sys.stderr)
        return 2
    return 0
