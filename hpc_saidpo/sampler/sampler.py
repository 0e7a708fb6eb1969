"""The dynamic sampler as an object, for any training loop: what `loop.py` does with the parts, in one place."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields

import numpy as np

from .. import difficulty, settings
from ..records import ClusterCounts, Difficulty, Seen, seed_of
from .draw import draw
from .history import History, excluded
from .weights import cluster_weights, weights


class Sampler:
    """Draws questions where the policy errs on what it can solve, and learns from how they went.

        sampler = Sampler(cluster_N, Config(rule="error", n_questions=64), seed=0)
        for iteration in range(10):
            sampler.begin(iteration)
            question_Q = sampler.draw()
            ...  # roll out, grade, train
            sampler.update(question_Q, n_correct_Q, n_tried_Q)

    A call depends on the arguments of this one and of those before it, and on nothing else: on every rank it gives the
    same.

    Args:
        cluster_N: cluster of each question, 0 .. C-1.
        seed: decides every draw.
        ids: what to call the questions by; None: by their indices.
        k: rollouts that a drawn question gets, for the rules that look ahead.
        band: which questions are too hard or too easy for their errors to count.
    """

    def __init__(
        self,
        cluster_N: Sequence[int],
        config: settings.Sampler | None = None,
        seed: int = 0,
        ids: Sequence[Hashable] | None = None,
        k: int = 8,
        band: settings.Difficulty | None = None,
    ):
        self.cluster_N = np.asarray(cluster_N, dtype=np.int64)
        if self.cluster_N.ndim != 1 or len(self.cluster_N) == 0 or self.cluster_N.min() < 0:
            raise ValueError("cluster_N must be the cluster of each question: one dimension, 0 or more, not empty")
        if ids is not None and len(set(ids)) != len(self.cluster_N):
            raise ValueError("ids must be as many as there are questions, and no two the same")
        self.config, self.seed, self.k, self.band = config or settings.Sampler(), seed, k, band or settings.Difficulty()
        self._ids = None if ids is None else list(ids)
        self._index = None if ids is None else {id: index for index, id in enumerate(self._ids)}
        self._history = History.empty(len(self.cluster_N), int(self.cluster_N.max()) + 1)
        self._iteration, self._n_draws = 0, 0

    @property
    def iteration(self) -> int:
        """The iteration at hand; the first is 0."""
        return self._iteration

    @property
    def counts(self) -> ClusterCounts:
        """Evidence per cluster."""
        return self._history.counts

    def begin(self, iteration: int | None = None) -> None:
        """Begin an iteration: what was seen before weighs `config.history` as much, once per iteration that passed.

        Args:
            iteration: not before the one at hand; None: the next one.

        Raises:
            ValueError: it lies before the one at hand.
        """
        iteration = self._iteration + 1 if iteration is None else iteration
        if iteration < self._iteration:
            raise ValueError(f"iteration {iteration} lies before {self._iteration}, the one at hand")
        if iteration > self._iteration:
            self._history = self._history.discounted(self.config.history ** (iteration - self._iteration))
            self._iteration, self._n_draws = iteration, 0

    def update(self, question_Q: Sequence, n_correct_Q: Sequence[int], n_tried_Q: Sequence[int]) -> None:
        """Tell how rollouts of questions went. A question may stand there several times: its counts add up.

        Args:
            question_Q: indices, or ids where the sampler has them.
            n_correct_Q, n_tried_Q: correct ones of how many; a question with none tried says nothing.

        Raises:
            ValueError: an unknown question, or 0 <= correct <= tried does not hold.
        """
        index_R = self._indices(question_Q)
        s_R, k_R = np.asarray(n_correct_Q, dtype=np.int64), np.asarray(n_tried_Q, dtype=np.int64)
        if not len(index_R) == len(s_R) == len(k_R) or (s_R < 0).any() or (s_R > k_R).any():
            raise ValueError("update needs, for each question, 0 <= n_correct <= n_tried")
        question_Q, inverse_R = np.unique(index_R[k_R > 0], return_inverse=True)
        k_Q, s_Q = (
            np.bincount(inverse_R, weights=x[k_R > 0], minlength=len(question_Q)).astype(np.int64) for x in (k_R, s_R)
        )
        unknown = np.full((3, len(question_Q)), np.nan)
        self.observe(Difficulty(question_Q, k_Q, s_Q, *unknown))

    def observe(self, measured: Difficulty) -> None:
        """Add the measured difficulty of questions, by index: like `update`, with the length of their responses."""
        in_band_Q = difficulty.in_band(measured, self.band)
        self._history = self._history.observe(self._iteration, measured, self.cluster_N, in_band_Q)

    def cluster_weights(self) -> np.ndarray:
        """W(i), a float per cluster: the weight of its questions that were never seen."""
        return cluster_weights(self._history.counts, self.config, self.k, self._seed_of("thompson"))

    def weights(self) -> np.ndarray:
        """The weight of every question in the next draw, as `draw` uses them, a float per question."""
        seed = self._seed_of("thompson")
        return weights(self._history, self.cluster_N, self._iteration, self.config, self.k, seed)

    def draw(self, n: int | None = None) -> np.ndarray | list:
        """Draw questions, without replacement within the iteration.

        Args:
            n: number of questions; None: `config.n_questions`.

        Returns:
            In drawing order: indices, or ids where the sampler has them.

        Raises:
            RunError: fewer than n may be drawn.
        """
        index_Q = self.choose(n)
        self.note_drawn(index_Q)
        return index_Q if self._ids is None else [self._ids[i] for i in index_Q.tolist()]

    def choose(self, n: int | None = None) -> np.ndarray:
        """The indices that `draw` would draw, in drawing order; the sampler stays as it is. Raises: as `draw`."""
        n = self.config.n_questions if n is None else n
        excluded_N = excluded(self._history, self._iteration, self.config)
        return draw(self.weights(), n, self._seed_of("draw"), excluded_N)

    def note_drawn(self, index_Q: np.ndarray) -> None:
        """Count these questions, by index, as drawn in this iteration."""
        self._history = self._history.drew(self._iteration, index_Q)
        self._n_draws += 1

    @property
    def history(self) -> History:
        """All evidence of clusters and questions."""
        return self._history

    def state_dict(self) -> dict:
        """What the sampler has learned, as plain numbers and lists that JSON can hold."""
        return {
            "n_questions": len(self.cluster_N),
            "iteration": self._iteration,
            "n_draws": self._n_draws,
            **{name: _lists(table) for name, table in (("counts", self.counts), ("seen", self._history.seen()))},
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict` of a sampler of the same questions.

        Raises:
            ValueError: it is of another number of questions or clusters.
        """
        counts, seen = _table(ClusterCounts, state["counts"]), _table(Seen, state["seen"])
        of, own = (state["n_questions"], len(counts)), (len(self.cluster_N), len(self.counts))
        if of != own:
            raise ValueError(f"the state is of {of[0]} questions in {of[1]} clusters, not of {own[0]} in {own[1]}")
        self._history = History.of(counts, seen, len(self.cluster_N))
        self._iteration, self._n_draws = state["iteration"], state["n_draws"]

    def _indices(self, question_Q) -> np.ndarray:
        if self._index is not None:
            unknown = [id for id in question_Q if id not in self._index]
            if unknown:
                raise ValueError(f"no question has the id {unknown[0]!r}")
            return np.array([self._index[id] for id in question_Q], dtype=np.int64)
        index_R = np.asarray(question_Q, dtype=np.int64)
        if ((index_R < 0) | (index_R >= len(self.cluster_N))).any():
            raise ValueError(f"questions are 0 .. {len(self.cluster_N) - 1}")
        return index_R

    def _seed_of(self, what: str) -> int:
        return seed_of(self.seed, self._iteration, what, self._n_draws)


def _lists(table) -> dict[str, list]:
    return {f.name: getattr(table, f.name).tolist() for f in fields(table)}


def _table(cls, lists: dict[str, list]):
    return cls(*(np.array(lists[f.name], dtype=f.metadata["dtype"]) for f in fields(cls)))
