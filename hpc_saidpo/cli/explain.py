"""Explain why an iteration drew a question, and what came of it.

    hpc-saidpo explain runs/demo --iteration 1 --question numbers-17

Shows the question's cluster with its counts and interval, its weight, its chance to be drawn, its difficulty, its
rollouts, and the pair that it gave or why it gave none. Any question that the iteration probed or explored can be asked
for. Exits 0, or 2 when there is no such run, iteration or question.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError
from ..report.explain import explain


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo explain", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--iteration", type=int, required=True)
    parser.add_argument("--question", required=True, help="its id in the pool")
    asked = parser.parse_args(arguments)
    try:
        for about, text in explain(asked.run, asked.iteration, asked.question):
            print(f"{about:12s}{text}")
    except RunError as error:
        print(f"explain: {error}", file=sys.stderr)
        return 2
    return 0
