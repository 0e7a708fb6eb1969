"""Pass rates of a cluster's questions as a Beta distribution: its fit, and what the next rollouts are worth under it.

A question's pass rate is p ~ Beta(a, b), its K rollouts give s ~ Binomial(K, p). One mechanism serves clusters, and
questions that were seen before: these have the posterior Beta(a + d·s, b + d·(K - s)), d the discount for their age.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..records import ClusterCounts

# Bounds of a + b, the evidence in rollouts that a cluster is about a question: a few counts may ask for 0 or infinity.
LEAST, MOST = 1e-2, 1e4
EDGE = 1e-6  # a mean pass rate keeps this distance from 0 and 1


@dataclass(frozen=True)
class Beta:
    """Beta distributions of pass rates by mean and size: a = mean·size, b = (1 - mean)·size; arrays of one shape."""

    mean: np.ndarray
    size: np.ndarray

    @property
    def a(self) -> np.ndarray:
        return self.mean * self.size

    @property
    def b(self) -> np.ndarray:
        return (1 - self.mean) * self.size


def fit(counts: ClusterCounts, kappa: float) -> tuple[Beta, Beta]:
    """Fit a Beta to each cluster by moments: (of each cluster, of the pool).

    s/K and 2·s·(K-s)/(K·(K-1)) are unbiased for p and 2·p·(1-p) at any K, so that questions of differing K add up
    (Kleinman 1973 weighs instead). Both means are pulled towards the pool's with the strength of `kappa` questions.
    With E[p·(1-p)] = mean·(1-mean)·size/(size+1), they give mean and size.

    Args:
        counts: with at least one question tried twice or more.
    """
    mean = counts.passed_C.sum() / counts.n_C.sum()
    differ = counts.differ_C.sum() / counts.several_C.sum()
    mean_C = (counts.passed_C + kappa * mean) / (counts.n_C + kappa)
    differ_C = (counts.differ_C + kappa * differ) / (counts.several_C + kappa)
    return _by_moments(mean_C, differ_C), _by_moments(mean, differ)


def _by_moments(mean, differ) -> Beta:
    mean = np.clip(mean, EDGE, 1 - EDGE)
    share = np.clip(differ / (2 * mean * (1 - mean)), LEAST / (1 + LEAST), MOST / (1 + MOST))
    return Beta(mean, share / (1 - share))


def none_of(k: int, a, b) -> np.ndarray:
    """P(s = 0) of the next k rollouts under Beta(a, b), elementwise: prod over j < k of (b + j)/(a + b + j)."""
    chance = np.ones(np.broadcast(a, b).shape)
    for j in range(k):
        chance *= (b + j) / (a + b + j)
    return chance


def usable(k: int, a, b) -> np.ndarray:
    """P(0 < s < k): the next k rollouts give a preference pair."""
    return 1.0 - none_of(k, a, b) - none_of(k, b, a)


def usable_error(k: int, a, b) -> np.ndarray:
    """E[(1 - s/k)·1(0 < s < k)]: the error mass in the band that the next k rollouts show.

    In closed form E[1 - s/k] - P(s = 0): what s = k adds is 0, what s = 0 adds is 1 each time.
    """
    return b / (a + b) - none_of(k, a, b)
