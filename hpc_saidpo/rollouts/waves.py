"""Graded responses to one chunk of questions, drawn in waves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import settings
from ..grader.grader import Grader
from ..records import Question, Rollouts, seed_of
from ..settings.rollouts import PARAGRAPH, Sampling
from .effort import Effort
from .engine.engine import generate
from .engine.sampling import Response
from .prompts import Renderer
from .steps import count_steps


def in_waves(
    effort: Effort,
    token_Q: Mapping[int, list[int]],
    renderer: Renderer,
    sampling: Sampling,
    config: settings.Rollouts,
    seed: tuple[int, int, str],
    grader: Grader,
) -> Rollouts:
    """Draw and grade rollouts of a chunk's questions, wave by wave, until each question is decided or abandoned.

    Sample j of a question does not depend on the waves. So a question that is not abandoned gets both a correct and a
    wrong response exactly if it has both among all, and the decision depends on verdicts only: the pairs of a question
    are distributed as those of fixed responses (conf/README.md names the rules for which this holds).

    Args:
        effort: the responses to draw of a question in each wave, and when it is abandoned.
        token_Q: the prompt of each question, as token ids.
        seed: (run seed, iteration, stage name).
    """
    drawn, first, undecided = [], 0, list(token_Q)
    for n in effort.waves:
        if first:
            undecided = effort.going_on(undecided, Rollouts.concat(drawn), n)
        if not undecided:
            break
        seeds = [[seed_of(*seed, q, sample) for sample in range(first, first + n)] for q in undecided]
        responses = generate(renderer.policy, [token_Q[q] for q in undecided], seeds, sampling, config.generate)
        questions = [renderer.questions[q] for q in undecided]
        drawn.append(grade(undecided, questions, seeds, responses, grader, config.steps, first))
        first += n
    return Rollouts.concat(drawn).sorted()


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
