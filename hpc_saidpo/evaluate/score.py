"""Graded rollouts of a benchmark -> its figures (method, step 8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .. import difficulty
from ..grader.verifiers import find_verifier
from ..records import CORRECT, UNGRADABLE, Difficulty, Question, Rollouts
from .intervals import accuracy


def rows(graded: Rollouts, questions: Sequence[Question]) -> list[dict]:
    """The figures of a benchmark, then of each subject and each level if there are several.

    Args:
        graded: K rollouts of each question; `question_R` is the index in `questions`.

    Returns:
        Flat dicts, all with the same keys: by ("all", "subject", "level"), value (of the subject or level), and
            accuracy, low95, high95   mean pass rate and its 95 % interval (shares of 1; None without questions)
            n_questions, n_samples    gradable questions; responses to each
            ungradable                questions whose gold answer cannot be read; no other figure includes them
            pass_at_2, _4, ... _K     share of questions that k responses solve (Chen et al. 2021; unbiased)
            majority                  share of questions whose most frequent answer is correct; None for one response
            truncated                 share of responses that were cut at rollouts.max_new_tokens
            tokens                    mean length of a response
    """
    measured, vote_Q = difficulty.measure(graded), votes(graded, questions)
    k_at_most = int(measured.n_tried_Q.min()) if len(measured) else 0
    powers = {2**i for i in range(1, k_at_most.bit_length())}
    ks: list[int] = sorted(powers | {k_at_most} if k_at_most > 1 else powers)
    figures = []
    for by, value, group in _groups(questions):
        rollouts_G = np.flatnonzero(np.isin(graded.question_R, group))
        at_Q = np.flatnonzero(np.isin(measured.question_Q, group))
        part: Difficulty = measured.take(at_Q)
        figures.append({
            "by": by,
            "value": value,
            **accuracy(part),
            "ungradable": len(np.unique(graded.question_R[rollouts_G])) - len(part),
            **{f"pass_at_{k}": _mean(difficulty.pass_at_k(part.n_tried_Q, part.n_correct_Q, k)) for k in ks},
            "majority": _mean(vote_Q[at_Q]) if k_at_most > 1 else None,
            "truncated": _mean(~graded.finished_R[rollouts_G]),
            "tokens": _mean(graded.n_tokens_R[rollouts_G]),
        })  # fmt: skip
    return figures


def _groups(questions: Sequence[Question]) -> Iterator[tuple[str, str, list[int]]]:
    yield "all", "", list(range(len(questions)))
    for by in ("subject", "level"):
        value_N = [getattr(question, by) for question in questions]
        if len(set(value_N)) > 1:
            for value in sorted(set(value_N), key=_natural):
                yield by, value, [i for i, other in enumerate(value_N) if other == value]


def _natural(text: str) -> list[int | str]:
    """A sort key by which level 10 comes after level 9."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d{1,18})", text))]


def votes(graded: Rollouts, questions: Sequence[Question]) -> np.ndarray:
    """Majority votes: 1 if the most frequent answer is correct, 0 if it is wrong; one per gradable question, sorted.

    Two answers are the same if their normalised texts are (`Verifier.ballot`). If several answers are the most frequent
    ones, their mean counts. A response without an answer does not vote.
    """
    gradable = graded.take(np.flatnonzero(graded.verdict_R != UNGRADABLE))
    ballots: dict[int, dict[str, list[bool]]] = {int(q): {} for q in np.unique(gradable.question_R)}
    for question, verdict, response in zip(gradable.question_R, gradable.verdict_R, gradable.text_R, strict=True):
        answer = find_verifier(questions[int(question)].verifier).ballot(response)
        if answer is not None:
            ballots[int(question)].setdefault(answer, []).append(verdict == CORRECT)
    return np.array([_elected(votes_of_question) for votes_of_question in ballots.values()])


def _elected(verdicts_by_answer: Mapping[str, Sequence[bool]]) -> float:
    most = max(map(len, verdicts_by_answer.values()), default=0)
    return _mean([float(np.mean(v)) for v in verdicts_by_answer.values() if len(v) == most]) or 0.0


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None
