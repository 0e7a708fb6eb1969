"""Some responses for the report: the policy before the run beside the newest one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..records import CORRECT, UNGRADABLE, Question, Rollouts, pick
from .facts import Answer, Example
from .responses import stated_answer

RIGHT, WRONG, CUT, UNGRADED = "right", "wrong", "cut", "ungradable"
N_EXAMPLES = 10
# Pairs of kinds, before and after: one of each is shown before a second one of any.
_FIRST = ((WRONG, RIGHT), (RIGHT, WRONG), (WRONG, WRONG), (RIGHT, RIGHT), (CUT, RIGHT), (CUT, CUT), (WRONG, CUT))


def kind_of(verdict: int, finished: bool) -> str:
    """Return the kind of a response. A cut one is that, unless its verdict is right."""
    if verdict == CORRECT:
        return RIGHT
    return CUT if not finished else UNGRADED if verdict == UNGRADABLE else WRONG


def compare(before: Rollouts | None, after: Rollouts | None, questions: Sequence[Question]) -> list[Example]:
    """Return up to N_EXAMPLES questions with the first response of either, different kinds first.

    Args:
        before, after: rollouts of the same questions; None: there are none.
        questions: by the indices of the rollouts.
    """
    rows = [_first_rows(rollouts) for rollouts in (before, after)]
    both = [row_Q for row_Q in rows if row_Q]
    shared = sorted(set.intersection(*map(set, both))) if both else []
    kinds = {q: tuple(kind for row_Q in rows if row_Q for kind in [row_Q[q][1]]) for q in shared}
    chosen = _varied(kinds)
    answers = [
        _answers(rollouts, {q: row_Q[q] for q in chosen} if row_Q else {}, questions)
        for rollouts, row_Q in zip((before, after), rows, strict=True)
    ]
    asked = pick(questions, chosen)
    return [Example(asked[q].id, asked[q].text, _gold(asked[q]), answers[0].get(q), answers[1].get(q)) for q in chosen]


def _first_rows(rollouts: Rollouts | None) -> dict[int, tuple[int, str]]:
    """Question -> the row of its first response, and its kind."""
    if rollouts is None:
        return {}
    first = np.flatnonzero(rollouts.sample_R == 0).tolist()
    kinds = map(kind_of, rollouts.verdict_R[first].tolist(), rollouts.finished_R[first].tolist())
    return dict(zip(rollouts.question_R[first].tolist(), zip(first, kinds, strict=True), strict=True))


def _varied(kinds: Mapping[int, tuple[str, ...]]) -> list[int]:
    """Choose N_EXAMPLES questions: one of each combination of kinds, then another of each, and so on."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for question, kind in kinds.items():
        groups.setdefault(kind, []).append(question)
    order = sorted(groups, key=lambda kind: (_FIRST.index(kind) if kind in _FIRST else len(_FIRST), kind))
    turns = (groups[kind][i] for i in range(N_EXAMPLES) for kind in order if i < len(groups[kind]))
    return [question for question, _ in zip(turns, range(N_EXAMPLES), strict=False)]


def _answers(
    rollouts: Rollouts | None, row_Q: Mapping[int, tuple[int, str]], questions: Sequence[Question]
) -> dict[int, Answer]:
    if rollouts is None:
        return {}
    asked, some = pick(questions, row_Q), rollouts.take([row for row, _ in row_Q.values()])
    texts: Iterable[str] = some.text_R
    return {
        q: Answer(kind, text, stated_answer(asked[q], text))
        for (q, (_, kind)), text in zip(row_Q.items(), texts, strict=True)
    }


def _gold(question: Question) -> str:
    return " or ".join([question.answer, *question.alt_answers])
