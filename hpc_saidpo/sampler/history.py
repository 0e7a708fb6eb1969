"""The evidence of a run about its questions and clusters, and its discount by age."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import difficulty, settings
from ..errors import RunError
from ..records import Difficulty
from .counts import ClusterCounts, Seen

NEVER = -1
# Correlation between a question's errors in the band on two occasions: 0.25 to 0.65 for K from 4 to 16, simulated.
SAME_QUESTION = 0.5


@dataclass(frozen=True)
class History:
    """The evidence so far; every method returns a new value.

    Attributes:
        counts: running evidence per cluster.
        seen_at_N: the last iteration with rollouts of the question; -1 for never.
        counted_at_N: the last iteration in which its rollouts became evidence of its cluster; -1 for never.
        counted_N: how many times they did, each discounted by its age.
        n_tried_N, n_correct_N: K and s of the iteration `seen_at_N`; K = 0 if no response could be graded.
        fixed_tried_N, fixed_correct_N: the same of the responses whose number was fixed before: all, or with
            rollouts.adaptive those of the first wave. Other questions can learn from these: they do not lean.
        tokens_N: mean response length in that iteration, in tokens; NaN for never, or unknown.
        drawn_at_N: the last iteration that drew the question; -1 for never.
    """

    counts: ClusterCounts
    seen_at_N: np.ndarray
    counted_at_N: np.ndarray
    counted_N: np.ndarray
    n_tried_N: np.ndarray
    n_correct_N: np.ndarray
    fixed_tried_N: np.ndarray
    fixed_correct_N: np.ndarray
    tokens_N: np.ndarray
    drawn_at_N: np.ndarray

    @classmethod
    def empty(cls, n_questions: int, n_clusters: int) -> History:
        """The history of a new run."""
        never, none = np.full(n_questions, NEVER, np.int32), np.zeros(n_questions, np.int32)
        zero_N, tokens_N = np.zeros(n_questions, np.float32), np.full(n_questions, np.nan, np.float32)
        return cls(ClusterCounts.zero(n_clusters), never, never, zero_N, none, none, none, none, tokens_N, never)

    @classmethod
    def restore(cls, counts: ClusterCounts, seen: Seen, n_questions: int) -> History:
        """The history whose `seen()` and `counts` these are."""
        history = cls.empty(n_questions, len(counts))._with(
            seen.question_Q,
            seen_at_N=seen.seen_at_Q,
            counted_at_N=seen.counted_at_Q,
            counted_N=seen.counted_Q,
            n_tried_N=seen.n_tried_Q,
            n_correct_N=seen.n_correct_Q,
            fixed_tried_N=seen.fixed_tried_Q,
            fixed_correct_N=seen.fixed_correct_Q,
            tokens_N=seen.tokens_Q,
            drawn_at_N=seen.drawn_at_Q,
        )
        return replace(history, counts=counts)

    def seen(self) -> Seen:
        """The questions that were ever rolled out or drawn, one row each, ascending."""
        question_Q = np.flatnonzero((self.seen_at_N > NEVER) | (self.drawn_at_N > NEVER))
        columns = (
            self.seen_at_N, self.counted_at_N, self.counted_N, self.n_tried_N, self.n_correct_N, self.fixed_tried_N,
            self.fixed_correct_N, self.tokens_N, self.drawn_at_N,
        )  # fmt: skip
        return Seen(question_Q, *(column[question_Q] for column in columns))

    def discounted(self, discount: float) -> History:
        """The history at the start of an iteration: older evidence counts less, because the policy has changed."""
        return replace(self, counts=self.counts * discount, counted_N=self.counted_N * np.float32(discount))

    def observe(
        self,
        iteration: int,
        seen: Difficulty,
        cluster_N: np.ndarray,
        band: settings.Difficulty,
        is_probe: bool = False,
        first_wave: Difficulty | None = None,
    ) -> History:
        """Add graded questions, to the counts of the questions and of their clusters.

        Counts of one question from the same iteration add up; counts from an earlier one are replaced. A cluster learns
        from probed questions, and from others at first sight: a question is drawn again because of what is known of
        it, so it does not stand for its cluster.

        Args:
            band: bounds of the pass rate between which errors count.
            is_probe: these questions are a random sample of the pool.
            first_wave: what other questions learn from, where the number of responses depends on what they are
                (rollouts.adaptive): the same questions, not yet seen in this iteration, by a number of responses that
                was fixed before. None: `seen`.
        """
        q = seen.question_Q
        again_Q, counted_Q = self.seen_at_N[q] == iteration, self.counted_at_N[q] == iteration
        now_Q = counted_Q | is_probe | (self.seen_at_N[q] == NEVER)
        if first_wave is not None:  # of some questions no response of the first wave could be graded
            now_Q &= np.isin(q, first_wave.question_Q)
        before_N = self.counted_N - (self.counted_at_N == iteration)
        tried_Q, correct_Q, fixed_tried_Q, fixed_correct_Q = (
            np.where(again_Q, column[q], 0)
            for column in (self.n_tried_N, self.n_correct_N, self.fixed_tried_N, self.fixed_correct_N)
        )
        fixed = seen if first_wave is None else first_wave
        place_F = np.searchsorted(q, fixed.question_Q)
        fixed_tried_Q[place_F] += fixed.n_tried_Q
        fixed_correct_Q[place_F] += fixed.n_correct_Q
        whole = replace(seen, n_tried_Q=seen.n_tried_Q + tried_Q, n_correct_Q=seen.n_correct_Q + correct_Q)
        history = self._with(
            q,
            seen_at_N=iteration,
            counted_at_N=np.where(now_Q, iteration, self.counted_at_N[q]),
            counted_N=before_N[q] + now_Q,
            n_tried_N=whole.n_tried_Q,
            n_correct_N=whole.n_correct_Q,
            fixed_tried_N=fixed_tried_Q,
            fixed_correct_N=fixed_correct_Q,
            tokens_N=seen.tokens_Q,
        )
        # What was counted in this iteration gives way to the sum: so parts of an update are the same as the whole.
        replaced = replace(seen, n_tried_Q=tried_Q, n_correct_Q=correct_Q).take(np.flatnonzero(counted_Q))
        learned = whole if first_wave is None else first_wave
        learned = learned.take(np.flatnonzero(np.isin(learned.question_Q, q[now_Q])))
        removed, added = (
            count(part, cluster_N[part.question_Q], len(self.counts), band, before_N[part.question_Q])
            for part in (replaced, learned)
        )
        return replace(history, counts=self.counts - removed + added)

    def note_ungradable(self, iteration: int, question_Q: np.ndarray) -> History:
        """Note questions of whose responses in this iteration none could be graded. They are not drawn again."""
        none = dict.fromkeys(("n_tried_N", "n_correct_N", "fixed_tried_N", "fixed_correct_N"), 0)
        return self._with(question_Q, seen_at_N=iteration, **none)

    def note_drawn(self, iteration: int, question_Q: np.ndarray) -> History:
        """Note the questions drawn in this iteration, for `excluded`."""
        return self._with(question_Q, drawn_at_N=iteration)

    def _with(self, question_Q: np.ndarray, **values_Q: Any) -> History:
        columns = {name: getattr(self, name).copy() for name in values_Q}
        for name, value_Q in values_Q.items():
            columns[name][question_Q] = value_Q
        return replace(self, **columns)


def count(
    seen: Difficulty,
    cluster_Q: np.ndarray,
    n_clusters: int,
    band: settings.Difficulty,
    before_Q: np.ndarray | float = 0.0,
) -> ClusterCounts:
    """Evidence per cluster from graded questions.

    Args:
        cluster_Q: the cluster of each question.
        before_Q: each question's part of the cluster's n so far.
        band: too easy and too hard questions are left out before errors are counted (the paper's order).
    """
    in_band_Q = difficulty.in_band(seen, band)
    s_Q, k_Q = seen.n_correct_Q.astype(np.float64), seen.n_tried_Q.astype(np.float64)
    several_Q = k_Q > 1
    rollout_pairs_Q = np.maximum(k_Q * (k_Q - 1), 1.0)

    def per_cluster(value_Q: np.ndarray) -> np.ndarray:
        return np.bincount(cluster_Q, weights=value_Q, minlength=n_clusters)

    error_Q = np.where(in_band_Q, 1.0 - s_Q / k_Q, 0.0)
    return ClusterCounts(
        n_C=per_cluster(np.ones(len(seen))),
        squares_C=per_cluster(1.0 + 2.0 * SAME_QUESTION * np.broadcast_to(before_Q, len(seen))),
        error_C=per_cluster(error_Q),
        error2_C=per_cluster(error_Q**2),
        usable_C=per_cluster(1.0 * in_band_Q),
        passed_C=per_cluster(s_Q / k_Q),
        several_C=per_cluster(1.0 * several_Q),
        differ_C=per_cluster(2 * s_Q * (k_Q - s_Q) / rollout_pairs_Q),
    )


def excluded(history: History, iteration: int, config: settings.Sampler) -> np.ndarray:
    """Whether each question of the pool may not be drawn, a bool per question.

    It may not if it was drawn in this iteration, or in the last `exclude_iterations` before it; or if none of its
    responses could be graded.
    """
    is_recent_N = (history.drawn_at_N > NEVER) & (history.drawn_at_N >= iteration - config.exclude_iterations)
    return is_recent_N | ((history.seen_at_N > NEVER) & (history.n_tried_N == 0))


def check_enough(n_allowed: int, iterations: int, config: settings.Sampler) -> None:
    """Check before the first iteration that every iteration can draw its questions.

    Args:
        n_allowed: questions of the pool that may be drawn.
        iterations: number of iterations of the run.

    Raises:
        RunError: with the questions excluded that the last `exclude_iterations` drew, too few are left.
    """
    n_before = min(config.exclude_iterations, iterations - 1)
    needed = (n_before + 1) * config.n_questions
    if needed <= n_allowed:
        return
    drawn = f"sampler.n_questions={config.n_questions} are drawn in each iteration"
    if n_before:
        drawn += f" and not again in the next {n_before} (sampler.exclude_iterations={config.exclude_iterations})"
    raise RunError(
        f"{drawn}, so the pool needs {needed} questions that may be drawn, but has {n_allowed}: lower "
        "sampler.n_questions" + " or sampler.exclude_iterations" * bool(n_before) + ", or use a larger pool"
    )
