"""The dynamic sampler as one object, for any training loop. `loop.py` uses it too."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from .. import difficulty, settings
from ..records import ClusterCounts, Difficulty, Seen, seed_of
from .draw import draw
from .history import History, excluded
from .rules import find_rule
from .weights import cluster_weights, weights

Table = TypeVar("Table", ClusterCounts, Seen)


class Sampler:
    """Draws questions where the policy fails on what it can solve, and learns from the rollouts.

        sampler = Sampler(cluster_N, settings.Sampler(rule="error", n_questions=64), seed=0)
        for iteration in range(10):
            sampler.begin(iteration)
            question_Q = sampler.draw()
            ...  # roll out, grade, train
            sampler.update(question_Q, n_correct_Q, n_tried_Q)

    The result of a call depends on its arguments and on those of earlier calls, and on nothing else. So it is the same
    on every rank.

    Args:
        cluster_N: cluster of each question, 0 .. C-1.
        config: the rule and its parameters.
        seed: decides every draw.
        ids: ids of the questions, to use in place of indices.
        k: rollouts of a drawn question, for rules with `expected` (`rules.Rule`).
        band: bounds of the pass rate; errors of questions outside are not errors in the band.
        never_Q: indices of questions that are never drawn.

    Raises:
        RunError: there is no such rule.
        ValueError: `cluster_N` or `ids` is malformed.
    """

    def __init__(
        self,
        cluster_N: Sequence[int] | np.ndarray,
        config: settings.Sampler | None = None,
        seed: int = 0,
        ids: Sequence[Hashable] | None = None,
        k: int = 8,
        band: settings.Difficulty | None = None,
        never_Q: Sequence[int] | np.ndarray = (),
    ):
        self.cluster_N = np.asarray(cluster_N, dtype=np.int64)
        if self.cluster_N.ndim != 1 or len(self.cluster_N) == 0 or self.cluster_N.min() < 0:
            raise ValueError("cluster_N must be the cluster of each question: one dimension, 0 or more, not empty")
        if ids is not None and len(set(ids)) != len(self.cluster_N):
            raise ValueError("ids must be as many as the questions, and all different")
        self.never_N = np.zeros(len(self.cluster_N), dtype=bool)
        self.never_N[np.asarray(never_Q, dtype=np.int64)] = True
        self.config, self.seed, self.k, self.band = config or settings.Sampler(), seed, k, band or settings.Difficulty()
        find_rule(self.config.rule)
        self._ids = None if ids is None else list(ids)
        self._index = {id: index for index, id in enumerate(self._ids or ())}
        self._history = History.empty(len(self.cluster_N), int(self.cluster_N.max()) + 1)
        self._iteration: int = 0
        self._n_draws: int = 0

    @property
    def iteration(self) -> int:
        """The present iteration; the first is 0."""
        return self._iteration

    @property
    def counts(self) -> ClusterCounts:
        """Evidence per cluster."""
        return self._history.counts

    @property
    def history(self) -> History:
        """All evidence about clusters and questions."""
        return self._history

    def begin(self, iteration: int | None = None) -> None:
        """Begin an iteration: multiply the weight of earlier evidence by `config.history`, once per iteration.

        Args:
            iteration: not before the present one; None: the next one.

        Raises:
            ValueError: it is before the present one.
        """
        iteration = self._iteration + 1 if iteration is None else iteration
        if iteration < self._iteration:
            raise ValueError(f"iteration {iteration} is before {self._iteration}, the present one")
        if iteration > self._iteration:
            self._history = self._history.discounted(self.config.history ** (iteration - self._iteration))
            self._iteration, self._n_draws = iteration, 0

    def update(
        self, question_Q: Sequence[Any] | np.ndarray, n_correct_Q: Sequence[int], n_tried_Q: Sequence[int]
    ) -> None:
        """Add the results of rollouts. A question may occur several times: its counts add up.

        Args:
            question_Q: indices, or ids if the sampler has them.
            n_correct_Q, n_tried_Q: number of correct rollouts and of all; a question without any is ignored.

        Raises:
            ValueError: an unknown question, or 0 <= correct <= tried does not hold.
        """
        index_R = self._indices(question_Q)
        s_R, k_R = np.asarray(n_correct_Q, dtype=np.int64), np.asarray(n_tried_Q, dtype=np.int64)
        if not len(index_R) == len(s_R) == len(k_R) or (s_R < 0).any() or (s_R > k_R).any():
            raise ValueError("update needs, for each question, 0 <= n_correct <= n_tried")
        index_Q, inverse_R = np.unique(index_R[k_R > 0], return_inverse=True)
        k_Q, s_Q = (
            np.bincount(inverse_R, weights=x[k_R > 0], minlength=len(index_Q)).astype(np.int64) for x in (k_R, s_R)
        )
        unknown = np.full((3, len(index_Q)), np.nan)
        self.observe(Difficulty(index_Q, k_Q, s_Q, *unknown))

    def observe(self, measured: Difficulty) -> None:
        """Add the measured difficulty of questions, by index: like `update`, with the length of their responses."""
        in_band_Q = difficulty.in_band(measured, self.band)
        self._history = self._history.observe(self._iteration, measured, self.cluster_N, in_band_Q)

    def cluster_weights(self) -> np.ndarray:
        """W(i), a float per cluster: the weight of its questions without rollouts."""
        return cluster_weights(self._history.counts, self.config, self.k, self._seed("thompson"))

    def weights(self) -> np.ndarray:
        """The weight of every question in the next draw, a float per question."""
        seed = self._seed("thompson")
        return weights(self._history, self.cluster_N, self._iteration, self.config, self.k, seed)

    def draw(self, n: int | None = None) -> np.ndarray | list[Hashable]:
        """Draw questions, without replacement within the iteration.

        Args:
            n: number of questions; None: `config.n_questions`.

        Returns:
            In drawing order: indices, or ids if the sampler has them.

        Raises:
            RunError: fewer than n may be drawn.
        """
        index_Q = self.choose(n)
        self.note_drawn(index_Q)
        return index_Q if self._ids is None else [self._ids[i] for i in index_Q.tolist()]

    def choose(self, n: int | None = None) -> np.ndarray:
        """The indices of the next `draw`, in drawing order. The sampler does not change. Raises: as `draw`."""
        n = self.config.n_questions if n is None else n
        excluded_N = excluded(self._history, self._iteration, self.config) | self.never_N
        return draw(self.weights(), n, self._seed("draw"), excluded_N)

    def note_drawn(self, index_Q: np.ndarray) -> None:
        """Count these questions, by index, as drawn in this iteration."""
        self._history = self._history.note_drawn(self._iteration, index_Q)
        self._n_draws += 1

    def state_dict(self) -> dict[str, Any]:
        """All evidence, as plain numbers and lists that JSON can hold."""
        return {
            "n_questions": len(self.cluster_N),
            "iteration": self._iteration,
            "n_draws": self._n_draws,
            **{name: _lists(table) for name, table in (("counts", self.counts), ("seen", self._history.seen()))},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the `state_dict` of a sampler of the same questions.

        Raises:
            ValueError: it has another number of questions or clusters.
        """
        counts, seen = _table(ClusterCounts, state["counts"]), _table(Seen, state["seen"])
        n_questions, n_clusters = state["n_questions"], len(counts)
        if (n_questions, n_clusters) != (len(self.cluster_N), len(self.counts)):
            raise ValueError(
                f"the state has {n_questions} questions in {n_clusters} clusters, this sampler {len(self.cluster_N)} "
                f"in {len(self.counts)}"
            )
        self._history = History.restore(counts, seen, len(self.cluster_N))
        self._iteration, self._n_draws = state["iteration"], state["n_draws"]

    def _indices(self, question_Q: Sequence[Any] | np.ndarray) -> np.ndarray:
        if self._ids is not None:
            unknown = [id for id in question_Q if id not in self._index]
            if unknown:
                raise ValueError(f"no question has the id {unknown[0]!r}")
            return np.array([self._index[id] for id in question_Q], dtype=np.int64)
        index_R = np.asarray(question_Q, dtype=np.int64)
        if ((index_R < 0) | (index_R >= len(self.cluster_N))).any():
            raise ValueError(f"questions are 0 .. {len(self.cluster_N) - 1}")
        return index_R

    def _seed(self, purpose: str) -> int:
        return seed_of(self.seed, self._iteration, purpose, self._n_draws)


def _lists(table: ClusterCounts | Seen) -> dict[str, list]:
    return {f.name: getattr(table, f.name).tolist() for f in fields(table)}


def _table(cls: type[Table], lists: dict[str, list]) -> Table:
    return cls(*(np.array(lists[f.name], dtype=f.metadata["dtype"]) for f in fields(cls)))
