"""reasoning-gym's own scorers: for the process that may be killed."""

from __future__ import annotations

import functools
import json

from ..records import CORRECT, UNGRADABLE, WRONG, Judgement
from ..settings.pool import EVALUATING


def score(entry: str, answer: str) -> Judgement:
    """Whether the task's scorer gives an answer 1.

    Args:
        entry: JSON with the keys task, question, answer, metadata.
    """
    scorer, known, gold = _known(entry)
    if gold != 1:
        return Judgement(UNGRADABLE, f"its own answer scores {gold}")
    try:
        found = scorer(answer, known)
    except Exception as error:  # noqa: BLE001 - a scorer that can read its own answer, and cannot read this one
        return Judgement(WRONG, f"the scorer cannot read it: {type(error).__name__}: {error}"[:200])
    return Judgement(CORRECT if found == 1 else WRONG, f"scores {found:g}")


@functools.lru_cache(maxsize=64)
def _known(entry: str):
    """A scorer, the entry, and what its own answer scores."""
    known = json.loads(entry)
    if known["task"] in EVALUATING:
        raise ValueError(f"the scorer of {known['task']} evaluates answers as Python")
    scorer = _scorer(known["task"])
    return scorer, known, scorer(known["answer"], known)


@functools.lru_cache(maxsize=64)
def _scorer(task: str):
    from reasoning_gym import get_score_answer_fn

    return get_score_answer_fn(task)
