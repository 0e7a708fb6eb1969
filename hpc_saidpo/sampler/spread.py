"""How much error rates differ within and between clusters: the test of differences, and intervals of rates."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import fdtrc, stdtrit

from .counts import ClusterCounts
from .weights import posterior_rate

NEXT_TO_NOTHING = 1e-12
LEVEL = 0.975  # the upper quantile of a two-sided 95 % interval


class Spread(NamedTuple):
    """An analysis of variance of the questions' errors in the band, with clusters as groups.

    Questions are weighted by their age, so numbers of questions are effective ones (`ClusterCounts.n_effective_C`).

    Attributes:
        within, between: mean squares.
        within_df, between_df: their degrees of freedom.
        n: effective number of questions that stands for a cluster, which relates the two: E[between] = within + n·tau²
            for a variance tau² of the clusters' true rates.
    """

    within: float
    between: float
    within_df: float
    between_df: float
    n: float


def spread(counts: ClusterCounts) -> Spread | None:
    """Return the analysis of variance; None with too few questions for one."""
    some = counts.take(np.flatnonzero(counts.n_effective_C >= 1))  # a question that is nearly forgotten is no group
    n_C, size = some.n_effective_C, len(some)
    within_df, between_df = float(n_C.sum() - size), float(size - 1)
    if between_df < 1 or within_df <= 0:
        return None
    mean_C = some.error_C / some.n_C
    between = (n_C * (mean_C - np.average(mean_C, weights=n_C)) ** 2).sum() / between_df
    free = (some.n_C - some.squares_C / some.n_C).sum()
    within = (some.error2_C - some.n_C * mean_C**2).sum() / free
    n = (n_C.sum() - (n_C**2).sum() / n_C.sum()) / between_df
    return Spread(max(float(within), 0.0), float(between), within_df, between_df, float(n))


def difference_p(counts: ClusterCounts) -> float | None:
    """Probability that clusters differ so much in their errors in the band by chance alone; None: too few questions.

    The F-test of a one-way analysis of variance over the questions tried.
    """
    found = spread(counts)
    if found is None:
        return None
    if found.within <= NEXT_TO_NOTHING:  # no question differs from its cluster's others
        return 0.0 if found.between > NEXT_TO_NOTHING else 1.0
    return float(fdtrc(found.between_df, found.within_df, found.between / found.within))


def rate_intervals(counts: ClusterCounts, error_C: np.ndarray, kappa: float) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals of the clusters' error rates, around the shrunk rates (`posterior_rate`): (low, high), [C] each.

    The mean squared error of a shrunk rate has two parts: (n / (n + kappa))² times the variance of the mean of n
    effective questions, and (kappa / (n + kappa))² times the variance of the true rates, because it is pulled away from
    its own. The variance of the questions is the cluster's own, from its second moment, pulled towards that of all
    clusters as if by one more question. A cluster without evidence has [0, 1].

    Args:
        error_C: error mass of each cluster, of which the rates are shown. The second moment of errors in the band is
            kept. Of others it is at most the first, because an error is at most 1: that is used, and intervals are
            wider than they need be.
    """
    if not np.array_equal(error_C, counts.error_C):
        counts = replace(counts, error_C=error_C, error2_C=error_C)
    found, n_C = spread(counts), counts.n_effective_C
    rate_C = posterior_rate(error_C, counts.n_C, kappa)
    if found is None:
        return np.zeros(len(counts)), np.ones(len(counts))
    between = max(0.0, found.between - found.within) / found.n if found.n > 0 else 0.0
    n_weighted_C = np.maximum(counts.n_C, NEXT_TO_NOTHING)
    squares_C = counts.error2_C - counts.error_C**2 / n_weighted_C  # of deviations, in weighted questions
    own_C = np.maximum(squares_C, 0.0) * n_C / n_weighted_C  # in effective questions
    df_C = np.maximum(n_C - 1, 0.0) + 1
    variance_C = (own_C + found.within) / df_C
    kept_C = counts.n_C / np.maximum(counts.n_C + kappa, NEXT_TO_NOTHING)
    square_C = kept_C**2 * variance_C / np.maximum(n_C, 1.0) + (1 - kept_C) ** 2 * between
    half_C = stdtrit(np.minimum(df_C + kappa, found.within_df), LEVEL) * np.sqrt(square_C)
    half_C = np.where(counts.n_C > 0, half_C, 1.0)
    return np.clip(rate_C - half_C, 0, 1), np.clip(rate_C + half_C, 0, 1)
