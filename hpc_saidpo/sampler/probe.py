"""The choice of the questions to probe (method, step 1)."""

from __future__ import annotations

import numpy as np

from .. import settings


def choose(cluster_N: np.ndarray, config: settings.Probe, rng: np.random.Generator) -> np.ndarray:
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
