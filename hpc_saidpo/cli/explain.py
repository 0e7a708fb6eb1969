"""Explain why an iteration drew a question, and what the result was.

    hpc-saidpo explain runs/demo --iteration 1 --question numbers-17

Shows the question's cluster with its counts and interval, its weight, its
probability of being drawn, its difficulty, its rollouts, and its preference
pair or the reason why it has none. The question may be any that the iteration
probed or explored.
A rule of your own (sampler.rule=package.module:name) is imported with
--import-rule only: the run folder names it, and may be someone else's.
Exits 0, or 2 when there is no such run, iteration or question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError, shown
from ..layout import paragraph
from ..screen import output_width
from ..terminal import complain
from .help import parser

LINE_CHARS = 2000  # of a topic


def main(arguments: Sequence[str]) -> int:
    """Print the explanation, one line for each topic. Returns the exit code."""
    options = parser("explain", __doc__)
    options.add_argument("run", type=Path, help="the run folder")
    options.add_argument("--iteration", type=int, required=True, help="number of the iteration, from 0")
    options.add_argument("--question", required=True, help="the question's id in the pool")
    options.add_argument("--import-rule", action="store_true", help="import the module of a rule of your own")
    values = options.parse_args(arguments)
    from ..report.explain import explain  # imports scipy, which help does not need
    from ..store.contents import lacking

    try:
        for topic, text in explain(values.run, values.iteration, values.question, values.import_rule):
            print(paragraph(shown(text, LINE_CHARS), output_width(), f"{topic:12s}"))
        if lack := lacking(values.run):
            complain("explain", lack)
    except RunError as error:
        complain("explain", error)
        return 2
    return 0
