"""The dynamic sampler as one object, for any training loop. `loop.py` uses it too."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from .. import settings
from ..records import Difficulty, seed_of
from .counts import ClusterCounts, Seen
from .draw import draw
from .history import History, excluded
from .rules import find_rule
from .weights import Plan, entropy_share, log_cluster_weights, log_weights, pass_rates, shown, useful_share

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
        ValueError: `cluster_N` or `ids` is malformed, or k is not 2 or more.
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
        self.cluster_N = _whole_numbers("cluster_N", cluster_N)
        if self.cluster_N.ndim != 1 or len(self.cluster_N) == 0 or self.cluster_N.min() < 0:
            raise ValueError("cluster_N must be the cluster of each question: one dimension, 0 or more, not empty")
        if ids is not None and len(set(ids)) != len(self.cluster_N):
            raise ValueError("ids must be as many as the questions, and all different")
        self.never_N = np.zeros(len(self.cluster_N), dtype=bool)
        self.never_N[np.asarray(never_Q, dtype=np.int64)] = True
        if k < 2 or k != int(k):
            raise ValueError(f"k must be a whole number of 2 or more, not {k}: one response yields no pair")
        self.config, self.seed, self.k, self.band = config or settings.Sampler(), seed, k, band or settings.Difficulty()
        find_rule(self.config.rule)
        self._ids = None if ids is None else list(ids)
        self._index = {id: index for index, id in enumerate(self._ids or ())}
        self._size_C = np.bincount(self.cluster_N)
        self._history = History.empty(len(self.cluster_N), len(self._size_C))
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
        self,
        question_Q: Sequence[Any] | np.ndarray,
        n_correct_Q: Sequence[int],
        n_tried_Q: Sequence[int],
        is_probe: bool = False,
    ) -> None:
        """Add the results of rollouts. A question may occur several times, in one call or in several: counts add up.

        Args:
            question_Q: indices, or ids if the sampler has them.
            n_correct_Q, n_tried_Q: number of correct rollouts and of all, or whether it is one, for single rollouts; a
                question without any is ignored.
            is_probe: the questions are a random sample of the pool, so that each tells of its cluster. Otherwise they
                do at first sight only.

        Raises:
            ValueError: an unknown question, or 0 <= correct <= tried does not hold.
        """
        index_R = self._indices(question_Q)
        s_R, k_R = _whole_numbers("n_correct_Q", n_correct_Q), _whole_numbers("n_tried_Q", n_tried_Q)
        if not len(index_R) == len(s_R) == len(k_R) or (s_R < 0).any() or (s_R > k_R).any():
            raise ValueError("update needs lists of equal length, and 0 <= n_correct <= n_tried for each question")
        index_Q, inverse_R = np.unique(index_R[k_R > 0], return_inverse=True)
        k_Q, s_Q = (
            np.bincount(inverse_R, weights=x[k_R > 0], minlength=len(index_Q)).astype(np.int64) for x in (k_R, s_R)
        )
        unknown = np.full((3, len(index_Q)), np.nan)
        self.observe(Difficulty(index_Q, k_Q, s_Q, *unknown), is_probe)

    def observe(self, measured: Difficulty, is_probe: bool = False, first_wave: Difficulty | None = None) -> None:
        """Add the measured difficulty of questions, by index: like `update`, with the length of their responses.

        Args:
            first_wave: see `History.observe`.
        """
        self._history = self._history.observe(
            self._iteration, measured, self.cluster_N, self.band, is_probe, first_wave
        )

    def note_ungradable(self, index_Q: np.ndarray) -> None:
        """Exclude questions, by index, from further draws: none of their responses could be graded."""
        self._history = self._history.note_ungradable(self._iteration, index_Q)

    def cluster_weights(self) -> np.ndarray:
        """W(i), a float per cluster: the weight of its questions without rollouts."""
        return shown(log_cluster_weights(self._history.counts, self._plan()))

    def weights(self) -> np.ndarray:
        """The weight of every question in the next draw, a float per question; exclusions are not part of it."""
        return shown(self._log_weights())

    def priors(self, index_Q: np.ndarray) -> dict[int, tuple[float, float]]:
        """(a, b) of the Beta distribution of the pass rate of questions, by index; {} without evidence."""
        found = pass_rates(self._history, self.cluster_N, index_Q, self._iteration, self.config)
        if found is None:
            return {}
        return dict(zip(index_Q.tolist(), zip(*(x.tolist() for x in found), strict=True), strict=True))

    def entropy_share(self) -> float:
        """Entropy of the next draw's first question as a share of the uniform one, exclusions included."""
        return entropy_share(np.where(self._excluded(), -np.inf, self._log_weights()))

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
        return draw(self._log_weights(), n, self._seed("draw"), self._excluded())

    def _plan(self) -> Plan:
        plan = Plan(self.config, self.k, self.band, self._seed("thompson"))
        return replace(plan, useful=useful_share(self.counts, self._size_C, plan)) if self.config.temper else plan

    def _log_weights(self) -> np.ndarray:
        return log_weights(self._history, self.cluster_N, self._iteration, self._plan())

    def _excluded(self) -> np.ndarray:
        return excluded(self._history, self._iteration, self.config) | self.never_N

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
            ValueError: it has another number of questions or clusters, or is of an earlier version.
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
        if np.asarray(question_Q).dtype == np.bool_:
            raise ValueError("question_Q must be indices, not a mask: np.flatnonzero makes indices of one")
        index_R = _whole_numbers("question_Q", question_Q)
        if ((index_R < 0) | (index_R >= len(self.cluster_N))).any():
            raise ValueError(f"questions are 0 .. {len(self.cluster_N) - 1}")
        return index_R

    def _seed(self, purpose: str) -> int:
        return seed_of(self.seed, self._iteration, purpose, self._n_draws)


def _whole_numbers(name: str, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Values as int64.

    Raises:
        ValueError: one of them is not a whole number.
    """
    try:
        given = np.asarray(values)
        whole = given.astype(np.int64)
        is_whole = bool((whole == given).all())
    except (TypeError, ValueError, OverflowError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"{name} must be whole numbers, not {values!r:.80}")
    return whole


def _lists(table: ClusterCounts | Seen) -> dict[str, list]:
    """The columns as lists; None in place of NaN, which JSON does not have."""
    return {f.name: [None if x != x else x for x in getattr(table, f.name).tolist()] for f in fields(table)}


def _table(cls: type[Table], lists: dict[str, list]) -> Table:
    missing = [f.name for f in fields(cls) if f.name not in lists]
    if missing:
        raise ValueError(f"the state is of an earlier version: it lacks {', '.join(missing)}")
    return cls(**{
        f.name: np.array([np.nan if x is None else x for x in lists[f.name]], dtype=f.metadata["dtype"])
        for f in fields(cls)
    })  # fmt: skip
