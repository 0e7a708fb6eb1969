"""Which questions to probe, and what the probe says about each cluster (README, method steps 1 and 3)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from .records import ClusterCounts, Difficulty, settings


@settings()
class Config:
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    stratified: bool = False


def choose(cluster_N: np.ndarray, config: Config, rng: np.random.Generator) -> np.ndarray:
    """Indices of the probed questions, ascending: `fraction` of the pool, at least one.

    Uniform over the pool, or, when `stratified`, over each cluster in proportion to its size (largest remainders).
    """
    n = max(1, round(config.fraction * len(cluster_N)))
    if not config.stratified:
        return np.sort(rng.choice(len(cluster_N), size=n, replace=False))
    size_C = np.bincount(cluster_N)
    share_C = n * size_C / len(cluster_N)
    quota_C = np.floor(share_C).astype(int)
    remainder = np.argsort(-(share_C - quota_C), kind="stable")[: n - quota_C.sum()]
    quota_C[remainder] += 1
    chosen = [rng.choice(np.flatnonzero(cluster_N == c), size=q, replace=False) for c, q in enumerate(quota_C)]
    return np.sort(np.concatenate(chosen))


def count(
    difficulty: Difficulty, cluster_N: np.ndarray, n_clusters: int, counted_Q: np.ndarray, usable_Q: np.ndarray
) -> ClusterCounts:
    """Evidence per cluster from one stage's graded questions.

    Args:
        counted_Q: bool; whose errors count: the questions in the band for the `error` rule (the too easy and the too
            hard are discarded before errors are counted), every question for `error_all`.
        usable_Q: bool; questions with 0 < s < K, which could give a pair.
    """
    cluster_Q = cluster_N[difficulty.question_Q]
    error_Q = np.where(counted_Q, 1.0 - difficulty.pass_rate_Q, 0.0)

    def per_cluster(weight_Q):
        return np.bincount(cluster_Q, weights=weight_Q, minlength=n_clusters)

    return ClusterCounts(
        n_C=per_cluster(np.ones(len(difficulty))), error_C=per_cluster(error_Q), usable_C=per_cluster(usable_Q * 1.0)
    )
