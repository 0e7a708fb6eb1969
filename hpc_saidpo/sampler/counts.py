"""The evidence of the sampler as tables: of single questions, and of clusters (method, step 3)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..table import Columns, column


@dataclass(frozen=True)
class Seen(Columns):
    """The history of single questions: those that the run has rolled out or drawn, in ascending order."""

    question_Q: np.ndarray = column(np.int64, "index of the question in the pool")
    seen_at_Q: np.ndarray = column(np.int32, "last iteration it was rolled out in; -1: never")
    counted_at_Q: np.ndarray = column(
        np.int32, "last iteration it became evidence of its cluster in; -1: never", earlier=-1
    )
    counted_Q: np.ndarray = column(
        np.float32, "times it became evidence of its cluster, each discounted by age", "questions", earlier=0
    )
    n_tried_Q: np.ndarray = column(np.int32, "K: gradable rollouts of that occasion; 0: none could be graded")
    n_correct_Q: np.ndarray = column(np.int32, "s: correct ones among them")
    fixed_tried_Q: np.ndarray = column(
        np.int32,
        "of them those whose number was fixed before (with rollouts.adaptive: the first wave)",
        earlier="n_tried",
    )
    fixed_correct_Q: np.ndarray = column(np.int32, "correct ones among these", earlier="n_correct")
    tokens_Q: np.ndarray = column(np.float32, "mean response length of that occasion; NaN: unknown", "tokens")
    drawn_at_Q: np.ndarray = column(np.int32, "last iteration it was drawn in; -1: never")


@dataclass(frozen=True)
class ClusterCounts(Columns):
    """Evidence per cluster (method, step 3): running sums over the questions tried, each with s of K correct."""

    n_C: np.ndarray = column(np.float64, "questions tried, discounted by age", "questions")
    squares_C: np.ndarray = column(np.float64, "variance of the sum of n errors, in that of one error", earlier="n")
    error_C: np.ndarray = column(np.float64, "sum of 1 - s/K over questions in the band", "questions")
    error2_C: np.ndarray = column(np.float64, "sum of (1 - s/K)^2 over questions in the band", "questions")
    usable_C: np.ndarray = column(np.float64, "questions in the band", "questions")
    passed_C: np.ndarray = column(np.float64, "sum of s/K", "questions")
    several_C: np.ndarray = column(np.float64, "questions with K > 1", "questions")
    differ_C: np.ndarray = column(np.float64, "sum of 2 s (K-s) / (K (K-1)): two rollouts differ", "questions")

    @classmethod
    def zero(cls, n_clusters: int) -> ClusterCounts:
        """Return the counts of clusters without evidence."""
        return cls(*(np.zeros(n_clusters) for _ in fields(cls)))

    def __add__(self, other: ClusterCounts) -> ClusterCounts:
        return ClusterCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: ClusterCounts) -> ClusterCounts:
        return self + other * -1.0

    def __mul__(self, discount: float) -> ClusterCounts:
        columns = {f.name: getattr(self, f.name) * discount for f in fields(self)}
        return ClusterCounts(**{**columns, "squares_C": self.squares_C * discount * abs(discount)})

    @property
    def n_effective_C(self) -> np.ndarray:
        """Number of questions, each tried once and now, with as much evidence: n² / squares.

        A question tried twice stands for less than two: its errors on two occasions are correlated.
        """
        return np.divide(self.n_C**2, self.squares_C, out=np.zeros(len(self)), where=self.squares_C > 0)
