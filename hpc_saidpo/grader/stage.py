"""Checks before the first rollout: gold answers against themselves, and verifiers on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..errors import RunError
from ..parallel.world import World
from ..progress import log
from ..records import Question, Questions, pick
from .available import check_verifiers
from .grader import Grader
from .self_check import HALF, by_grading, self_check, together

BATCH = 65_536  # questions whose texts are in memory at a time
GRADED_GOLDS = 256  # gold answers of a rank's share that are graded in a process; evenly spread


def check_golds(named: Mapping[str, Sequence[Question]], world: World, grader: Grader) -> None:
    """Check gold answers against themselves, each rank its share, and log the rate. Collective.

    Mathematics is checked by text, all of it. Of the other verifiers' questions, each rank grades at most GRADED_GOLDS.

    Args:
        named: questions by the name of their pool or benchmark.

    Raises:
        RunError: a verifier that questions name cannot grade on some rank; or most gold answers can never be right.
    """
    for name, questions in named.items():
        begin, end = (len(questions) * r // world.size for r in (world.rank, world.rank + 1))
        share = np.arange(begin, end)
        codes: dict[str, int] = {}
        code_N = np.fromiter((codes.setdefault(v, len(codes)) for v in _verifiers(questions, share)), np.int32)
        check_verifiers(set(codes), world, grader.limits)
        is_math_N = code_N == codes.get("math", -1)
        by_text = self_check(_golds(questions, share[is_math_N]))
        others = share[~is_math_N]
        some = others[:: max(1, -(-len(others) // GRADED_GOLDS))]
        graded = by_grading(pick(questions, some).values(), grader)
        reports = world.gather(together([by_text, graded]))
        report = together(reports)
        log.info("%s: %s", name, report.text())
        if report.rate < HALF:
            raise RunError(f"{name}: {report.fault()}")
        if fault := report.fault():
            log.warning("  %s: %s", name, fault)


def _verifiers(questions: Sequence[Question], rows: np.ndarray) -> Iterator[str]:
    for part in _batches(questions, rows):
        yield from part.verifier_N if isinstance(part, Questions) else (question.verifier for question in part)


def _golds(questions: Sequence[Question], rows: np.ndarray) -> Iterator[tuple[str, str]]:
    for part in _batches(questions, rows):
        if isinstance(part, Questions):  # of a table on disk, read no more than these two columns
            yield from zip(part.id_N, part.answer_N, strict=True)
        else:
            yield from ((question.id, question.answer) for question in part)


def _batches(questions: Sequence[Question], rows: np.ndarray) -> Iterator[Sequence[Question]]:
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        yield questions.take(some) if isinstance(questions, Questions) else [questions[row] for row in some]
