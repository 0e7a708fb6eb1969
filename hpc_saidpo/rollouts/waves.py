"""Graded responses to one chunk of questions, drawn in waves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import settings
from ..grader.grader import Grader
from ..records import CORRECT, WRONG, Question, Rollouts, seed_of
from ..settings.rollouts import PARAGRAPH, Sampling
from .engine.engine import generate
from .engine.sampling import Response
from .prompts import Renderer
from .steps import count_steps


def in_waves(
    waves: Sequence[int],
    token_Q: Mapping[int, list[int]],
    renderer: Renderer,
    sampling: Sampling,
    config: settings.Rollouts,
    seed: tuple[int, int, str],
    grader: Grader,
) -> Rollouts:
    """Draw and grade rollouts of a chunk's questions, wave by wave, until each question is decided.

    Sample j of a question does not depend on the waves. So a question gets both a correct and a wrong response exactly
    if it has both among all K, and the decision depends on verdicts only: the pairs are distributed as those of K fixed
    responses (conf/README.md names the rules for which this holds).

    Args:
        waves: responses to draw of a question in each wave.
        token_Q: the prompt of each question, as token ids.
        seed: (run seed, iteration, stage name).
    """
    drawn, first, undecided = [], 0, list(token_Q)
    for n in waves:
        seeds = [[seed_of(*seed, q, sample) for sample in range(first, first + n)] for q in undecided]
        responses = generate(renderer.policy, [token_Q[q] for q in undecided], seeds, sampling, config.generate)
        questions = [renderer.questions[q] for q in undecided]
        drawn.append(grade(undecided, questions, seeds, responses, grader, config.steps, first))
        done = decided(Rollouts.concat(drawn))
        undecided, first = [q for q in undecided if q not in done], first + n
        if not undecided:
            break
    return Rollouts.concat(drawn).sorted()


def decided(rollouts: Rollouts) -> set[int]:
    """Questions that make a pair: they have a correct response that ended by itself, and a wrong response."""
    is_chosen_R = (rollouts.verdict_R == CORRECT) & rollouts.finished_R
    is_rejected_R = rollouts.verdict_R == WRONG
    return set(rollouts.question_R[is_chosen_R].tolist()) & set(rollouts.question_R[is_rejected_R].tolist())


def grade(
    index_Q: Sequence[int],
    questions: Sequence[Question],
    seeds: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Response]],
    grader: Grader,
    step: str = PARAGRAPH,
    first: int = 0,
) -> Rollouts:
    """Grade responses. A truncated response is graded like any other.

    Args:
        index_Q: index of each question in its pool or benchmark.
        questions: the questions, in the same order.
        seeds, responses: K of each for every question.
        step: rule that counts reasoning steps (`steps.count_steps`).
        first: number of the first sample.
    """
    return Rollouts.from_rows(
        (
            *(q, first + sample, grader.judge(r.text, question).verdict, len(r.tokens), count_steps(r.text, step)),
            *(r.finished, seeds_K[sample], r.seconds, question.id, r.text, r.tokens),
        )
        for q, question, seeds_K, responses_K in zip(index_Q, questions, seeds, responses, strict=True)
        for sample, r in enumerate(responses_K)
    )
