"""The sampler that estimates pass rates from the most similar questions, not from clusters (clusters.kind=kernel)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..parallel.world import World
from ..records import Difficulty
from ..sampler import Sampler
from ..sampler.counts import ClusterCounts
from ..sampler.history import NEVER, History, count
from ..sampler.inclusion import inclusion
from ..sampler.stage import write_draw
from ..sampler.weights import log_weights, pass_rates
from ..store.stage import Stage
from ..table import Columns, column
from .neighbours import Neighbours


@dataclass(frozen=True)
class Neighbourhood(Columns):
    """What decided the weights of questions at a draw: of those drawn, and of those rolled out or drawn before."""

    question_Q: np.ndarray = column(np.int64, "index of the question in the pool, ascending")
    n_Q: np.ndarray = column(np.float64, "evidence: rolled-out questions by similarity and age", "questions")
    a_Q: np.ndarray = column(np.float64, "its pass rate ~ Beta(a, b), own counts included; NaN without evidence")
    b_Q: np.ndarray = column(np.float64, "b of this distribution")
    weight_Q: np.ndarray = column(np.float64, "its weight at the draw: relative probability")
    chance_Q: np.ndarray = column(np.float64, "chance to be drawn; 0 if excluded")


class KernelSampler(Sampler):
    """A `Sampler` that estimates the pass rate of a question from its neighbours, not from its cluster (ours).

    The results of a question are its last counts, discounted by their age; with rollouts.adaptive those of the first
    wave, because later waves depend on what it showed. Its own pass rate has all its counts. Clusters keep their
    counts, for tables and figures.

    Args:
        neighbours: of the same questions; None in a process that asks for no weights, priors or draws.
        cluster_N, others: as for `Sampler`.
    """

    def __init__(self, neighbours: Neighbours | None, cluster_N: Sequence[int] | np.ndarray, *others: Any):
        super().__init__(cluster_N, *others)
        self._neighbours_or_none = neighbours
        self._smoothed: tuple[tuple, tuple, ClusterCounts] | None = None

    @property
    def _neighbours(self) -> Neighbours:
        assert self._neighbours_or_none is not None, "this process has no vectors"
        return self._neighbours_or_none

    def cluster_weights(self) -> np.ndarray:
        """The mean weight of each cluster's questions, a float per cluster."""
        return np.bincount(self.cluster_N, weights=self.weights()) / np.maximum(1, self._size_C)

    def priors(self, index_Q: np.ndarray) -> dict[int, tuple[float, float]]:
        """(a, b) of the Beta distribution of the pass rate of questions, by index; {} without evidence."""
        known, text_N = self._by_text(), self._neighbours.text_N
        found = pass_rates(known, text_N, index_Q, self._iteration, self.config)
        if found is None:
            return {}
        return dict(zip(index_Q.tolist(), zip(*(x.tolist() for x in found), strict=True), strict=True))

    def describe(self, drawn_Q: np.ndarray, weight_N: np.ndarray) -> Neighbourhood:
        """What decided a draw.

        Args:
            drawn_Q: the drawn questions, by index.
            weight_N: the weights of the draw.
        """
        q = np.union1d(drawn_Q, self._history.seen().question_Q)
        prior_Q = self.priors(q)
        a_Q, b_Q = np.array([prior_Q.get(i, (np.nan, np.nan)) for i in q.tolist()]).T
        chance_N = inclusion(np.where(self._excluded(), 0.0, weight_N), np.ones(len(weight_N)), len(drawn_Q))
        n_Q = self._by_text().counts.n_C[self._neighbours.text_N[q]]
        return Neighbourhood(q, n_Q, a_Q, b_Q, weight_N[q], chance_N[q])

    def _log_weights(self) -> np.ndarray:
        return log_weights(self._by_text(), self._neighbours.text_N, self._iteration, self._plan())

    def _by_text(self) -> History:
        """The history with the smoothed evidence of each text in place of the clusters'."""
        history = self._history
        evidence = (history.seen_at_N, history.fixed_tried_N, history.fixed_correct_N)  # a draw changes none of them
        key = (self._iteration, *map(id, evidence))
        if self._smoothed is None or self._smoothed[0] != key:
            self._smoothed = key, evidence, self._smooth(history)  # with the arrays, so that their ids stay theirs
        return replace(history, counts=self._smoothed[-1])

    def _smooth(self, history: History) -> ClusterCounts:
        """The evidence of each text: counts of rolled-out questions, discounted by age, summed over its neighbours."""
        n_texts = len(self._neighbours.vector_UD)
        age_N = self._iteration - history.seen_at_N
        is_evidence_N = (history.seen_at_N > NEVER) & (history.fixed_tried_N > 0)
        if self.config.history == 0:
            is_evidence_N &= age_N == 0
        seen_Q = np.flatnonzero(is_evidence_N)
        if len(seen_Q) == 0:
            return ClusterCounts.zero(n_texts)
        row_T, text_Q = np.unique(self._neighbours.text_N[seen_Q], return_inverse=True)
        counts = ClusterCounts.zero(len(row_T))
        for age in np.unique(age_N[seen_Q]).tolist():
            of_age = np.flatnonzero(age_N[seen_Q] == age)
            q, unknown = seen_Q[of_age], np.full(len(of_age), np.nan)
            k_Q, s_Q = (column[q].astype(np.int64) for column in (history.fixed_tried_N, history.fixed_correct_N))
            seen = Difficulty(q, k_Q, s_Q, unknown, unknown, unknown)
            counts += count(seen, text_Q[of_age], len(row_T), self.band) * self.config.history**age
        columns = [getattr(counts, f.name) for f in fields(ClusterCounts)]
        return ClusterCounts(*self._neighbours.smooth(row_T, np.stack(columns, axis=1)).T)


def write_explained_draw(stage: Stage, sampler: Sampler, world: World) -> None:
    """Write a draw, and what decided it if the sampler is a `KernelSampler`. Collective."""
    write_draw(stage, sampler, world)
    if isinstance(sampler, KernelSampler):
        world.on_root(lambda: stage.write("neighbourhoods", sampler.describe(sampler.choose(), sampler.weights())))
