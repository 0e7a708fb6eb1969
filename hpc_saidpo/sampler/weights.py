"""Evidence -> drawing weights (method, step 3)."""

from __future__ import annotations

import numpy as np

from .. import settings
from ..records import ClusterCounts
from .betabinomial import EDGE, Beta, fit
from .history import NEVER, History
from .rules import find_rule

CHUNK = 2**18  # seen questions whose expectations are computed at once


def posterior_rate(event_C: np.ndarray, n_C: np.ndarray, kappa: float) -> np.ndarray:
    """Event rate per cluster, shrunk towards the pooled rate: (E_i + kappa·ē) / (n_i + kappa).

    The posterior mean under a Beta prior of strength `kappa` at the pooled rate ē; NaN everywhere when n is all zero.
    """
    pooled = event_C.sum() / n_C.sum() if n_C.sum() > 0 else np.nan
    return np.where(n_C > 0, (event_C + kappa * pooled) / (n_C + kappa), pooled)


def cluster_weights(counts: ClusterCounts, config: settings.Sampler, k: int = 8, seed: int = 0) -> np.ndarray:
    """W(i), a float per cluster: (value_i / pooled value)^alpha; exactly 1 for a cluster without evidence.

    The rule defines the value (`rules.Rule`): the posterior event rate of the cluster, or the expected value of the
    next k rollouts of a new question. Without any event in the pool, all weights are 1.

    Args:
        k: rollouts of a drawn question.
        seed: seed of the posterior draws, if `config.thompson` is true. A cluster without evidence then has a rate
            drawn from the prior at the pooled rate, so it is explored.
    """
    rule = find_rule(config.rule)
    if rule.events is None or not rule.distinguishes(counts):
        return np.ones(len(counts))
    if rule.expected is not None:
        beta_C, pool = _betas(counts, config, seed)
        value_C, pooled = rule.expected(k, beta_C.a, beta_C.b), rule.expected(k, pool.a, pool.b)
    else:
        event_C = rule.events(counts)
        pooled = event_C.sum() / counts.n_C.sum()
        value_C = posterior_rate(event_C, counts.n_C, config.kappa)
        if config.thompson:
            value_C = _drawn_rate(value_C, counts, config, seed)
    weight_C = (value_C / pooled) ** config.alpha
    return weight_C if config.thompson else np.where(counts.n_C > 0, weight_C, 1.0)


def weights(
    history: History, cluster_N: np.ndarray, iteration: int, config: settings.Sampler, k: int = 8, seed: int = 0
) -> np.ndarray:
    """Drawing weight of every question of the pool, a float per question.

    The questions of a cluster share W(i). Under a rule with `expected`, a question that was rolled out before has a
    weight of its own, from its last counts, which are discounted by their age:
    Beta(a_i + d·s, b_i + d·(K - s)), d = config.history^age.

    Args:
        k, seed: as in `cluster_weights`.
    """
    rule = find_rule(config.rule)
    weight_N = cluster_weights(history.counts, config, k, seed)[cluster_N]
    if rule.expected is None or not rule.distinguishes(history.counts):
        return weight_N
    beta_C, pool = _betas(history.counts, config, seed)
    pooled = rule.expected(k, pool.a, pool.b)
    seen = np.flatnonzero(history.seen_at_N > NEVER)
    for start in range(0, len(seen), CHUNK):
        q = seen[start : start + CHUNK]
        d_Q = config.history ** (iteration - history.seen_at_N[q]).astype(np.float64)
        q, d_Q = q[d_Q > 0], d_Q[d_Q > 0]
        c, s_Q = cluster_N[q], history.n_correct_N[q]
        value_Q = rule.expected(k, beta_C.a[c] + d_Q * s_Q, beta_C.b[c] + d_Q * (history.n_tried_N[q] - s_Q))
        weight_N[q] = (value_Q / pooled) ** config.alpha
    return weight_N


def _betas(counts: ClusterCounts, config: settings.Sampler, seed: int) -> tuple[Beta, Beta]:
    """Pass rates of each cluster's questions, and of the whole pool's; with `thompson`, the means are drawn."""
    beta_C, pool = fit(counts, config.kappa)
    if config.thompson:
        beta_C = Beta(_drawn_rate(beta_C.mean, counts, config, seed), beta_C.size)
    return beta_C, pool


def _drawn_rate(mean_C: np.ndarray, counts: ClusterCounts, config: settings.Sampler, seed: int) -> np.ndarray:
    """Rates drawn from their posterior: a Beta with this mean, from n_i + kappa questions."""
    n_C = counts.n_C + config.kappa
    drawn_C = np.random.default_rng(seed).beta(np.maximum(n_C * mean_C, EDGE), np.maximum(n_C * (1 - mean_C), EDGE))
    return np.clip(drawn_C, EDGE, 1 - EDGE)


def entropy_share(weight_C: np.ndarray, size_C: np.ndarray) -> float:
    """Entropy of the drawing distribution over questions, divided by that of the uniform one: 1 is random sampling."""
    p_C = weight_C / (weight_C * size_C).sum()
    entropy = -(size_C * p_C * np.log(np.where(p_C > 0, p_C, 1.0))).sum()
    return float(entropy / np.log(size_C.sum())) if size_C.sum() > 1 else 1.0
