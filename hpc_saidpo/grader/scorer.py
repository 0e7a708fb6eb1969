"""Verdicts by reasoning-gym's scorers. Import it only in the process that may be killed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

from ..errors import words_of
from ..records import CORRECT, UNGRADABLE, WRONG, Judgement
from ..settings.pool import EVALUATING

Scorer = Callable[[str, dict], float]


def score(entry: str, answer: str | None) -> Judgement:
    """Grade an answer: it is correct if the task's scorer returns 1.

    Args:
        entry: JSON with the keys task, question, answer, metadata.
        answer: None for the entry's own answer.
    """
    scorer, question, gold_score = _read(entry)
    if gold_score != 1:
        return Judgement(UNGRADABLE, f"its own answer scores {gold_score}")
    if answer is None:
        return Judgement(CORRECT, "its own answer scores 1")
    try:
        result = scorer(answer, question)
    except Exception as error:  # noqa: BLE001 - the scorer reads the gold answer, so this answer is malformed
        return Judgement(WRONG, f"the scorer cannot read it: {words_of(error, with_type=True)}")
    return Judgement(CORRECT if result == 1 else WRONG, f"scores {result:g}")


@functools.lru_cache(maxsize=64)
def _read(entry: str) -> tuple[Scorer, dict, float]:
    """The scorer of an entry, the entry itself, and the score of its gold answer."""
    question = json.loads(entry)
    if question["task"] in EVALUATING:
        raise ValueError(f"the scorer of {question['task']} evaluates answers as Python")
    scorer = _scorer(question["task"])
    return scorer, question, scorer(question["answer"], question)


@functools.lru_cache(maxsize=64)
def _scorer(task: str) -> Scorer:
    from reasoning_gym import get_score_answer_fn

    return get_score_answer_fn(task)  # pyright: ignore[reportReturnType] - it is declared as any Callable
