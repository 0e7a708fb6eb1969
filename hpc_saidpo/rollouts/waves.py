"""Responses of one chunk of questions, drawn in waves and graded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import settings
from ..grader.grader import Grader
from ..records import CORRECT, WRONG, Question, Rollouts, seed_of
from ..settings.rollouts import PARAGRAPH, Sampling
from .engine.engine import generate
from .engine.sampling import Response
from .prompts import Prompts
from .steps import count_steps


def in_waves(
    waves: Sequence[int],
    token_Q: Mapping[int, list[int]],
    prompts: Prompts,
    how: Sampling,
    config: settings.Rollouts,
    seed: tuple[int, int, str],
    grader: Grader,
) -> Rollouts:
    """Graded rollouts of these questions, wave after wave; a question that is decided is drawn no more.

    Sample j of a question is the same one however many waves there are. So the questions that have both a correct and a
    wrong response are those that have them among all K, and which responses come with that does not depend on what else
    they are: the pairs are those of K fixed responses (README, early decision, says for which rules this holds).
    """
    drawn, first, left = [], 0, list(token_Q)
    for n in waves:
        seeds = [[seed_of(*seed, q, sample) for sample in range(first, first + n)] for q in left]
        responses = generate(prompts.policy, [token_Q[q] for q in left], seeds, how, config.generate)
        asked = [prompts.questions[q] for q in left]
        drawn.append(grade(left, asked, seeds, responses, grader, config.steps, first))
        settled = decided(Rollouts.concat(drawn))
        left, first = [q for q in left if q not in settled], first + n
        if not left:
            break
    return Rollouts.concat(drawn).sorted()


def decided(rollouts: Rollouts) -> set[int]:
    """The questions that can give a pair: with a correct response that ended by itself, and a wrong one."""
    good = (rollouts.verdict_R == CORRECT) & rollouts.finished_R
    bad = rollouts.verdict_R == WRONG
    return set(rollouts.question_R[good].tolist()) & set(rollouts.question_R[bad].tolist())


def grade(
    index_Q: Sequence[int],
    questions: Sequence[Question],
    seeds: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Response]],
    grader: Grader,
    step: str = PARAGRAPH,
    first: int = 0,
) -> Rollouts:
    """Responses as graded rollouts; a truncated response is graded like any other.

    Args:
        index_Q, questions: the questions, by index in their pool and themselves.
        seeds, responses: K of each for every question.
        grader: gives the verdicts.
        step: what counts as a reasoning step (`steps.count_steps`).
        first: number of the first sample.
    """
    return Rollouts.from_rows(
        (
            *(q, first + sample, grader.judge(r.text, question).verdict, len(r.tokens), count_steps(r.text, step)),
            *(r.finished, own_seeds[sample], r.seconds, question.id, r.text),
        )
        for q, question, own_seeds, own in zip(index_Q, questions, seeds, responses, strict=True)
        for sample, r in enumerate(own)
    )
