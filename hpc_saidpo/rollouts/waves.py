"""Graded responses to chunks of questions, drawn in waves, in one queue for the engine."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .. import settings
from ..grader.grader import Grader
from ..parallel.claims import Claims
from ..parallel.world import World
from ..records import Question, Rollouts, seed_of
from ..settings.rollouts import PARAGRAPH, Sampling
from .chunks import starts
from .effort import Effort
from .engine.engine import stream
from .engine.sampling import Response
from .engine.work import Load, Work
from .prompts import Renderer
from .steps import count_steps


@dataclass(frozen=True)
class Plan:
    """How the questions of a stage are answered and graded.

    Attributes:
        effort: the responses to draw of a question in each wave, and when it is abandoned.
        start_Q: tokens at the beginning of a question's prompt that many prompts share (`chunks.starts`).
        seed: (run seed, iteration, stage name).
    """

    effort: Effort
    token_Q: Mapping[int, Sequence[int]]
    start_Q: Mapping[int, int]
    questions: Sequence[Question] | Mapping[int, Question]
    config: settings.Rollouts
    seed: tuple[int, int, str]
    grader: Grader

    @property
    def load(self) -> Load:
        """Bounds of the works."""
        longest = max(map(len, self.token_Q.values()), default=1)
        rest = max((len(ids) - self.start_Q[q] for q, ids in self.token_Q.items()), default=1)
        starts = {tuple(ids[: self.start_Q[q]]) for q, ids in self.token_Q.items()}
        return Load(min(self.effort.waves), longest, rest, max(map(len, starts), default=0), max(1, len(starts)))


class Chunk:
    """The questions of a chunk: their graded rollouts so far, and the responses to draw next.

    Sample j of a question does not depend on the waves. So a question that is not abandoned gets both a correct and a
    wrong response exactly if it has both among all, and the decision depends on verdicts only: the pairs of a question
    are distributed as those of fixed responses (conf/README.md names the rules for which this holds).
    """

    def __init__(self, question_Q: Sequence[int], plan: Plan):
        self._plan, self.questions = plan, list(question_Q)
        self._tables_Q: dict[int, list[Rollouts]] = {q: [] for q in question_Q}
        self._n_open = len(question_Q)

    def works(self) -> list[tuple[int, Work]]:
        """The first wave of each question."""
        return [(q, self._work(q, 0)) for q in self.questions]

    def note(self, q: int, work: Work) -> Work | None:
        """Grade the responses to a question. Returns its next wave, None if it needs none."""
        plan, tables = self._plan, self._tables_Q[q]
        waves, question = plan.effort.waves, plan.questions[q]
        first = sum(waves[: len(tables)])
        tables.append(grade([q], [question], [work.seeds], [work.responses], plan.grader, plan.config.steps, first))
        n_done = len(tables)
        if n_done < len(waves) and plan.effort.goes_on(q, Rollouts.concat(tables), waves[n_done]):
            return self._work(q, n_done)
        self._n_open -= 1
        return None

    @property
    def is_complete(self) -> bool:
        return self._n_open == 0

    def table(self) -> Rollouts:
        """All rollouts, sorted."""
        return Rollouts.concat([table for tables in self._tables_Q.values() for table in tables]).sorted()

    def _work(self, q: int, wave: int) -> Work:
        plan, waves = self._plan, self._plan.effort.waves
        first = sum(waves[:wave])
        seeds = [seed_of(*plan.seed, q, sample) for sample in range(first, first + waves[wave])]
        return Work(plan.token_Q[q], seeds, plan.start_Q[q])


def in_waves(
    effort: Effort,
    token_Q: Mapping[int, list[int]],
    renderer: Renderer,
    sampling: Sampling,
    config: settings.Rollouts,
    seed: tuple[int, int, str],
    grader: Grader,
) -> Rollouts:
    """Draw and grade rollouts of some questions, wave by wave, until each question is decided or abandoned.

    Args:
        effort: the responses to draw of a question in each wave, and when it is abandoned.
        token_Q: the prompt of each question, as token ids; of none: the result is empty.
        seed: (run seed, iteration, stage name).
    """
    if not token_Q:
        return Rollouts.concat([])
    plan = Plan(effort, token_Q, starts(token_Q, renderer.family), renderer.questions, config, seed, grader)
    world = World()
    queue = Queue(lambda _: Chunk(list(token_Q), plan), world.claims(1))
    ((_, table),) = queue.answers(stream(renderer.policy, queue.take, plan.load, sampling, config.generate))
    return table


class Queue:
    """The questions of a rank's chunks, one after another: those of the next chunk follow at once.

    A chunk is claimed when the engine has room, and no question of an earlier one is left to begin. So no more work is
    claimed than fills the engine's free rows, and a part of one chunk.

    Args:
        begin: makes the chunk of a claimed item.
        drained: begin no chunk before the one before it is complete.
    """

    def __init__(self, begin: Callable[[int], Chunk], claims: Claims, drained: bool = False):
        self._begin, self._claims, self._drained = begin, claims, drained
        self._waiting: deque[Work] = deque()
        self._of: dict[Work, tuple[int, Chunk, int]] = {}  # works without answers: item, chunk, question

    def take(self, wait: bool) -> Work | None:
        """The next work. None: none is ready; or, after waiting, none is left (`engine.work.Source`)."""
        while not self._waiting and not (self._drained and self._of):
            item = self._claims.next(wait)
            if item is None:
                break
            chunk = self._begin(item)
            for q, work in chunk.works():
                self._of[work] = item, chunk, q
                self._waiting.append(work)
        return self._waiting.popleft() if self._waiting else None

    def answers(self, works: Generator[Work]) -> Iterator[tuple[int, Rollouts]]:
        """Yield each item with the graded rollouts of its chunk, when it is complete.

        Args:
            works: complete works of this queue, from `engine.stream`; not begun when there are no items.
        """
        first = self.take(True)
        if first is None:
            return
        self._waiting.appendleft(first)
        with contextlib.closing(works):
            for work in works:
                item, chunk, q = self._of.pop(work)
                if more := chunk.note(q, work):
                    self._of[more] = item, chunk, q
                    self._waiting.appendleft(more)
                elif chunk.is_complete:
                    yield item, chunk.table()


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
