"""Evidence -> drawing weights (method, step 3)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .. import settings
from .betabinomial import EDGE, Beta, fit, usable
from .counts import ClusterCounts
from .history import NEVER, History
from .rules import find_rule

CHUNK = 2**18  # seen questions whose expectations are computed at once
LARGEST_LOG = 690.0  # exp of it is a number with 300 digits


def posterior_rate(event_C: np.ndarray, n_C: np.ndarray, kappa: float) -> np.ndarray:
    """Event rate per cluster, shrunk towards the pooled rate: (E_i + kappa·ē) / (n_i + kappa).

    The posterior mean under a Beta prior of strength `kappa` at the pooled rate ē; NaN everywhere when n is all zero.
    """
    pooled = event_C.sum() / n_C.sum() if n_C.sum() > 0 else np.nan
    return np.where(n_C > 0, (event_C + kappa * pooled) / (n_C + kappa), pooled)


@dataclass(frozen=True)
class Plan:
    """What turns evidence into weights.

    Attributes:
        k: rollouts of a drawn question.
        band: bounds of the pass rate between which a question yields pairs.
        seed: seed of the posterior draws, if `config.thompson` is true. A cluster without evidence then has a rate
            drawn from the prior at the pooled rate, so it is explored.
        useful: share of the pool's questions that are expected to be in the band (`useful_share`).
    """

    config: settings.Sampler
    k: int = 8
    band: settings.Difficulty = field(default_factory=settings.Difficulty)
    seed: int = 0
    useful: float = 0.0

    @property
    def alpha(self) -> float:
        """The exponent of the weights; with `config.temper` the smaller, the more of the pool is of use."""
        return self.config.alpha * (1 - self.useful) if self.config.temper else self.config.alpha


def useful_share(counts: ClusterCounts, size_C: np.ndarray, plan: Plan) -> float:
    """Share of the pool's questions of which k rollouts are expected to be in the band; 0 without evidence.

    Clusters count by their number of questions, not by how often they were drawn.
    """
    if counts.several_C.sum() == 0:
        return 0.0
    beta_C, pool = fit(counts, plan.config.kappa)
    useful_C = usable(plan.k, beta_C.a, beta_C.b, plan.band)
    useful_C = np.where(counts.n_C > 0, useful_C, usable(plan.k, pool.a, pool.b, plan.band))
    return float(np.average(useful_C, weights=size_C))


def log_cluster_weights(counts: ClusterCounts, plan: Plan) -> np.ndarray:
    """ln W(i), a float per cluster: alpha·ln(value_i / pooled value); exactly 0 for a cluster without evidence.

    The rule defines the value (`rules.Rule`): the posterior event rate of the cluster, or the expected value of the
    next k rollouts of a new question. Without any event in the pool, all weights are 1. Weights are kept as logarithms,
    because a large alpha would make them 0 or infinite.
    """
    config, rule = plan.config, find_rule(plan.config.rule)
    if rule.events is None or not rule.distinguishes(counts):
        return np.zeros(len(counts))
    if rule.expected is not None:
        beta_C, pool = _betas(counts, plan)
        value_C = rule.value(plan.k, beta_C.a, beta_C.b, plan.band)
        pooled = rule.value(plan.k, pool.a, pool.b, plan.band)
    else:
        event_C = rule.events(counts)
        pooled = event_C.sum() / counts.n_C.sum()
        value_C = posterior_rate(event_C, counts.n_C, config.kappa)
        if config.thompson:
            value_C = _drawn_rate(value_C, counts, config, plan.seed)
    log_C = _log_ratio(value_C, pooled, plan.alpha)
    return log_C if config.thompson else np.where(counts.n_C > 0, log_C, 0.0)


def log_weights(history: History, cluster_N: np.ndarray, iteration: int, plan: Plan) -> np.ndarray:
    """Logarithm of the drawing weight of every question of the pool, a float per question.

    The questions of a cluster share W(i). Under a rule with `expected`, a question that was rolled out before has a
    weight of its own, from its last counts, which are discounted by their age:
    Beta(a_i + d·s, b_i + d·(K - s)), d = config.history^age.
    """
    config, rule = plan.config, find_rule(plan.config.rule)
    log_N = log_cluster_weights(history.counts, plan)[cluster_N]
    if rule.expected is None or not rule.distinguishes(history.counts):
        return log_N
    beta_C, pool = _betas(history.counts, plan)
    pooled = rule.value(plan.k, pool.a, pool.b, plan.band)
    seen = np.flatnonzero(history.seen_at_N > NEVER)
    for start in range(0, len(seen), CHUNK):
        q = seen[start : start + CHUNK]
        q = q[config.history ** (iteration - history.seen_at_N[q]).astype(np.float64) > 0]
        a_Q, b_Q = _posterior(beta_C, history, cluster_N, q, iteration, config.history)
        log_N[q] = _log_ratio(rule.value(plan.k, a_Q, b_Q, plan.band), pooled, plan.alpha)
    return log_N


def pass_rates(
    history: History, cluster_N: np.ndarray, question_Q: np.ndarray, iteration: int, config: settings.Sampler
) -> tuple[np.ndarray, np.ndarray] | None:
    """(a, b) of the Beta distribution of each question's pass rate: its cluster's, and its own last counts.

    Returns:
        Two arrays of the length of `question_Q`; None without evidence.
    """
    if history.counts.several_C.sum() == 0:
        return None
    beta_C, _ = fit(history.counts, config.kappa)
    return _posterior(beta_C, history, cluster_N, question_Q, iteration, config.history)


def _posterior(
    beta_C: Beta, history: History, cluster_N: np.ndarray, question_Q: np.ndarray, iteration: int, discount: float
) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of each question: those of its cluster, and its last counts discounted by their age."""
    c, s_Q, n_Q = cluster_N[question_Q], history.n_correct_N[question_Q], history.n_tried_N[question_Q]
    seen_at_Q = history.seen_at_N[question_Q]
    d_Q = np.where(seen_at_Q > NEVER, discount ** np.maximum(iteration - seen_at_Q, 0).astype(np.float64), 0.0)
    return beta_C.a[c] + d_Q * s_Q, beta_C.b[c] + d_Q * (n_Q - s_Q)


def _log_ratio(value: np.ndarray, pooled: float | np.ndarray, alpha: float) -> np.ndarray:
    """ln((value / pooled)^alpha); a value of 0 has the weight 0, but for alpha = 0, which makes all weights 1."""
    if alpha == 0:
        return np.zeros(np.shape(value))
    with np.errstate(divide="ignore"):
        return alpha * np.log(value / pooled)


def shown(log_weight: np.ndarray) -> np.ndarray:
    """Weights for people and tables: exp of their logarithms, between 1e-300 and 1e300; 0 stays 0."""
    return np.where(np.isneginf(log_weight), 0.0, np.exp(np.clip(log_weight, -LARGEST_LOG, LARGEST_LOG)))


def _betas(counts: ClusterCounts, plan: Plan) -> tuple[Beta, Beta]:
    """Pass rates of each cluster's questions, and of the whole pool's; with `thompson`, the means are drawn."""
    beta_C, pool = fit(counts, plan.config.kappa)
    if plan.config.thompson:
        beta_C = Beta(_drawn_rate(beta_C.mean, counts, plan.config, plan.seed), beta_C.size)
    return beta_C, pool


def _drawn_rate(mean_C: np.ndarray, counts: ClusterCounts, config: settings.Sampler, seed: int) -> np.ndarray:
    """Rates drawn from their posterior: a Beta with this mean, from n_i + kappa questions."""
    n_C = counts.n_C + config.kappa
    drawn_C = np.random.default_rng(seed).beta(np.maximum(n_C * mean_C, EDGE), np.maximum(n_C * (1 - mean_C), EDGE))
    return np.clip(drawn_C, EDGE, 1 - EDGE)


def entropy_share(log_weight_N: np.ndarray) -> float:
    """Entropy of the distribution of the first drawn question, as a share of the largest possible one.

    The largest possible one is ln(number of questions that may be drawn); a share of 1 means uniform draws.

    Args:
        log_weight_N: of every question; -inf for those that may not be drawn.
    """
    p_N = np.exp(log_weight_N - log_weight_N.max())
    p_N /= p_N.sum()
    entropy = -(p_N * np.log(np.where(p_N > 0, p_N, 1.0))).sum()
    n_allowed = int(np.isfinite(log_weight_N).sum())
    return float(entropy / np.log(n_allowed)) if n_allowed > 1 else 1.0
