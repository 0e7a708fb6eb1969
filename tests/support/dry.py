"""The engine's queue without a model: rows are placed, begun and ended as in a run, and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import stats

from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.records import seed_of
from hpc_saidpo.rollouts import chunks
from hpc_saidpo.rollouts.engine.shared import Decoding
from hpc_saidpo.rollouts.engine.work import Backlog, Load, Options, Work
from hpc_saidpo.rollouts.waves import Queue
from hpc_saidpo.settings import Rollouts
from hpc_saidpo.settings.rollouts import Sampling


class Dry(Decoding):
    """The engine without a model. The first random number of a response decides its length.

    Args:
        length: random numbers in [0, 1) -> lengths.
    """

    def __init__(self, length: Callable[[np.ndarray], np.ndarray], *arguments):
        super().__init__(*arguments)
        self._length, self._end = length, min(self._policy.eos_ids)

    def _hidden(self, ids, first):
        return None, torch.zeros(1)

    def _head(self, ids, outputs, place):
        return torch.zeros(len(place), 1)

    def _decode(self, step):
        return torch.zeros(step.n_rows, 1)

    def _choose(self, rows):
        is_last = self._rows._n_R[rows] + 1 >= self._length(self._rows._uniform_RT[rows, 0])
        return np.where(is_last, self._end, self._end + 1), None


class Bare:
    """A chunk whose responses are not graded."""

    def __init__(self, questions: list[int], token_Q: dict[int, list[int]], k: int):
        self._works = [(q, Work(token_Q[q], [seed_of(0, 0, "x", q, s) for s in range(k)])) for q in questions]
        self._n_open = len(questions)

    def works(self):
        return self._works

    def note(self, q, work):
        self._n_open -= 1

    @property
    def is_complete(self):
        return self._n_open == 0

    def table(self):
        return None


def share_of_rows(
    policy: Policy, n: int, n_rows: int, mean: float, cap: int, k: int = 8, drained: bool = False
) -> tuple[float, int]:
    """Mean share of the rows that have a response in a step, and the number of steps, for n questions on one rank.

    Response lengths are lognormal (sigma 0.7), cut at `cap`.
    """
    rng = np.random.default_rng(0)
    token_Q = {q: [5] * int(rng.integers(20, 120)) for q in range(n)}
    cut = chunks.cut(token_Q, lambda q: "", *Rollouts(k=k).chunk_bounds("explore"))
    order = chunks.longest_first(cut, token_Q, {})
    queue = Queue(lambda item: Bare(cut[order[item]], token_Q, k), World().claims(len(cut)), drained)
    backlog = Backlog(queue.take, n_rows)
    lengths = stats.lognorm(0.7, scale=mean / np.exp(0.7**2 / 2))
    dry = Dry(
        lambda u: np.clip(np.ceil(lengths.ppf(u)), 1, cap), policy, backlog, Load(k, 120, 120),
        Sampling(1.0, 1.0, cap), Options(n_rows, with_logp=False),
    )  # fmt: skip

    def works() -> Iterator[Work]:
        for part in dry.run():
            if work := backlog.end(part):
                yield work

    assert len(list(queue.answers(works()))) == len(cut)
    return dry.n_row_steps / dry.n_steps / n_rows, dry.n_steps
