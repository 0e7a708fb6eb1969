"""Pass rates of a cluster's questions as a Beta distribution: its fit, and the expected value of the next rollouts.

The pass rate of a question is p ~ Beta(a, b), and s ~ Binomial(K, p) of its K rollouts are correct. A question that was
rolled out before has the posterior Beta(a + d·s, b + d·(K - s)), with d the discount for the age of its counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np

from .. import settings
from .counts import ClusterCounts

# Bounds of a + b, the evidence of a cluster about one of its questions, in rollouts: few counts may fit 0 or infinity.
LEAST, MOST = 1e-2, 1e4
EDGE = 1e-6  # distance of a mean pass rate from 0 and 1
NEAR_HALF = (0.25, 0.75)  # pass rates near the target 1/2
RARE = 1e-12  # least chance of such a rate: if it were 0 for all clusters, nothing could be drawn
PASSED = 0.5  # share of the questions that a gate lets pass, where they would give no pair
Values = float | np.ndarray  # a scalar, or an array of one shape


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
    """Fit a Beta to each cluster, and one to the pool, by moments.

    s/K and 2·s·(K-s)/(K·(K-1)) are unbiased for p and 2·p·(1-p) at any K, so questions with different K add up
    (Kleinman 1973 uses weights instead). Both means are pulled towards the pool's with the strength of `kappa`
    questions. Mean and size follow from E[p·(1-p)] = mean·(1-mean)·size/(size+1).

    Args:
        counts: at least one question was tried twice or more.

    Returns:
        (the Beta of each cluster, arrays of shape (C,); that of the pool, scalars).
    """
    mean = counts.passed_C.sum() / counts.n_C.sum()
    differ = counts.differ_C.sum() / counts.several_C.sum()
    mean_C = (counts.passed_C + kappa * mean) / (counts.n_C + kappa)
    differ_C = (counts.differ_C + kappa * differ) / (counts.several_C + kappa)
    return _by_moments(mean_C, differ_C), _by_moments(mean, differ)


def _by_moments(mean: Values, differ: Values) -> Beta:
    mean = np.clip(mean, EDGE, 1 - EDGE)
    share = np.clip(differ / (2 * mean * (1 - mean)), LEAST / (1 + LEAST), MOST / (1 + MOST))
    return Beta(mean, share / (1 - share))


def usable(k: int, a: Values, b: Values, band: settings.Difficulty) -> np.ndarray:
    """P(s/k in the band): the next k rollouts yield a preference pair. With the default band, P(0 < s < k)."""
    return _in_band(k, a, b, band, lambda s: 1.0)


def usable_error(k: int, a: Values, b: Values, band: settings.Difficulty) -> np.ndarray:
    """E[(1 - s/k)·1(s/k in the band)]: the expected error mass in the band of the next k rollouts."""
    return _in_band(k, a, b, band, lambda s: 1 - s / k)


def _in_band(k: int, a: Values, b: Values, band: settings.Difficulty, value: Callable[[int], float]) -> np.ndarray:
    """Sum of value(s)·P(s) over the s in the band, elementwise; s has the beta-binomial distribution of k rollouts."""
    from scipy.special import betaln  # here, because the check of a configuration must not wait for scipy

    total = np.zeros(np.broadcast(a, b).shape)
    for s in range(k + 1):
        if band.too_hard < s / k < band.too_easy:
            total += value(s) * comb(k, s) * np.exp(betaln(a + s, b + k - s) - betaln(a, b))
    return total


def variance(k: int, a: Values, b: Values) -> np.ndarray:
    """E[p·(1-p)] = ab / ((a+b)(a+b+1)): the expected variance of a response's verdict."""
    return np.asarray(a * b / ((a + b) * (a + b + 1)))


def deviation(k: int, a: Values, b: Values) -> np.ndarray:
    """E[√(p·(1-p))] = B(a+½, b+½) / B(a, b): the expected standard deviation of a response's verdict."""
    from scipy.special import betaln

    return np.exp(betaln(a + 0.5, b + 0.5) - betaln(a, b))


def infogain(k: int, a: Values, b: Values) -> np.ndarray:
    """E[p·(1-p)²] = ab(b+1) / ((a+b)(a+b+1)(a+b+2)): expected information gain, largest at a pass rate of 1/3."""
    return np.asarray(variance(k, a, b) * (b + 1) / (a + b + 2))


def near_half(k: int, a: Values, b: Values) -> np.ndarray:
    """P(1/4 < p < 3/4): a pass rate that is drawn from the posterior (Thompson sampling) is near the target 1/2.

    At least `RARE`, so that no cluster is excluded.
    """
    from scipy.special import betainc

    low, high = NEAR_HALF
    return np.maximum(betainc(a, b, high) - betainc(a, b, low), RARE)


def gate(k: int, a: Values, b: Values) -> np.ndarray:
    """Chance to pass a gate that stops half of the questions whose next k rollouts are all correct or all wrong.

    1 - (1 - PASSED)·P(s = 0 or s = k), with P(s = 0 or s = k) = (B(a, b+k) + B(a+k, b)) / B(a, b).
    """
    from scipy.special import betaln

    whole = betaln(a, b)
    alike = np.exp(betaln(a, b + k) - whole) + np.exp(betaln(a + k, b) - whole)
    return 1 - (1 - PASSED) * alike
