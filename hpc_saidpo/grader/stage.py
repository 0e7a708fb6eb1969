"""Checks before the first rollout: gold answers against themselves, and verifiers on every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..parallel.world import World
from ..progress import log
from ..records import Question, Questions, pick
from .available import check_verifiers
from .grader import Grader
from .self_check import by_grading, self_check, together

GRADED_GOLDS = 256  # gold answers of a rank's share that are graded in a process; evenly spread


def check_golds(named: Mapping[str, Sequence[Question]], world: World, grader: Grader) -> None:
    """Check gold answers against themselves, each rank its share, and log the rate. Collective.

    Mathematics is checked by text, all of it. Of the other verifiers' questions, each rank grades at most GRADED_GOLDS.

    Args:
        named: questions by the name of their pool or benchmark.

    Raises:
        RunError: a verifier that questions name cannot grade on some rank.
    """
    for name, questions in named.items():
        begin, end = (len(questions) * r // world.size for r in (world.rank, world.rank + 1))
        share = questions[begin:end]
        table = share if isinstance(share, Questions) else None
        verifier_N = np.array(table.verifier_N if table else [q.verifier for q in share], dtype=object)
        check_verifiers(set(verifier_N), world, grader.limits)
        golds = zip(table.id_N, table.answer_N, strict=True) if table else ((q.id, q.answer) for q in share)
        is_math_N = verifier_N == "math"
        by_text = self_check(gold for gold, is_math in zip(golds, is_math_N, strict=True) if is_math)
        others = np.flatnonzero(~is_math_N)
        some = others[:: max(1, -(-len(others) // GRADED_GOLDS))]
        graded = by_grading(pick(share, some).values(), grader)
        reports = world.gather(together([by_text, graded]))
        log.info("%s: %s", name, together(reports).text())
