"""Gold answers checked against themselves, and verifiers that can grade on every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..parallel.world import World
from ..progress import log
from ..records import Question, Questions, pick
from .available import check_verifiers
from .grader import Grader
from .self_check import by_grading, self_check, together

GRADED_GOLDS = 256  # of a rank's share that are graded, where that takes a process; evenly spread


def check_golds(named: Mapping[str, Sequence[Question]], world: World, grader: Grader) -> None:
    """Check every gold answer against itself, each rank its share, and tell the rate. Collective.

    Mathematics by text, all of it; what takes a process to grade on GRADED_GOLDS questions of each rank at most.

    Raises:
        RunError: a verifier that questions ask for cannot grade here.
    """
    for name, questions in named.items():
        begin, end = (len(questions) * r // world.size for r in (world.rank, world.rank + 1))
        own = questions[begin:end]
        table = own if isinstance(own, Questions) else None
        verifier_N = np.array(table.verifier_N if table else [q.verifier for q in own], dtype=object)
        check_verifiers(set(verifier_N), world, grader.limits)
        golds = zip(table.id_N, table.answer_N, strict=True) if table else ((q.id, q.answer) for q in own)
        is_math_N = verifier_N == "math"
        by_text = self_check(gold for gold, is_math in zip(golds, is_math_N, strict=True) if is_math)
        others = np.flatnonzero(~is_math_N)
        some = others[:: max(1, -(-len(others) // GRADED_GOLDS))]
        graded = by_grading(pick(own, some).values(), grader)
        reports = world.gather(together([by_text, graded]))
        log.info("%s: %s", name, together(reports).text())
