"""Cluster errors -> drawing weights -> drawn questions (README, method steps 3 and 4). Needs neither MPI nor torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.special import betaln

from .records import ClusterCounts, Difficulty, RunError, settings


@settings()
class Config:
    rule: Literal["error", "error_all", "frontier", "uniform"] = "error"
    alpha: Annotated[float, Field(ge=0)] = 2.0
    history: Annotated[float, Field(ge=0, le=1)] = 0.5
    kappa: Annotated[float, Field(gt=0)] = 4.0
    n_questions: Annotated[int, Field(ge=1)] = 1000
    exclude_iterations: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class History:
    """What the run has learned so far; every method returns a new value.

    Attributes:
        counts: running evidence per cluster.
        seen_at_N: the last iteration each question was rolled out in; -1 for never.
        n_tried_N, n_correct_N: K and s of that occasion.
        tokens_N: mean response length of that occasion, in tokens; NaN for never.
        drawn_at_N: the last iteration each question was drawn in; -1 for never.
    """

    counts: ClusterCounts
    seen_at_N: np.ndarray
    n_tried_N: np.ndarray
    n_correct_N: np.ndarray
    tokens_N: np.ndarray
    drawn_at_N: np.ndarray

    @classmethod
    def empty(cls, n_questions: int, n_clusters: int) -> History:
        never, none = np.full(n_questions, -1), np.zeros(n_questions, dtype=np.int64)
        return cls(ClusterCounts.zero(n_clusters), never, none, none, np.full(n_questions, np.nan), never)

    def discounted(self, discount: float) -> History:
        """At the start of an iteration: older evidence weighs less, for the policy has moved on."""
        return replace(self, counts=self.counts * discount)

    def observe(self, iteration: int, difficulty: Difficulty, counts: ClusterCounts) -> History:
        """Add one stage's evidence: the questions' own counts and their clusters'."""
        now = {
            "seen_at_N": iteration,
            "n_tried_N": difficulty.n_tried_Q,
            "n_correct_N": difficulty.n_correct_Q,
            "tokens_N": difficulty.tokens_Q,
        }
        columns = {name: getattr(self, name).copy() for name in now}
        for name, value in now.items():
            columns[name][difficulty.question_Q] = value
        return replace(self, counts=self.counts + counts, **columns)

    def drew(self, iteration: int, question_Q: np.ndarray) -> History:
        """Note the questions drawn in this iteration, for the exclusion rule."""
        drawn_at_N = self.drawn_at_N.copy()
        drawn_at_N[question_Q] = iteration
        return replace(self, drawn_at_N=drawn_at_N)


def posterior_rate(event_C: np.ndarray, n_C: np.ndarray, kappa: float) -> np.ndarray:
    """Event rate per cluster, shrunk towards the pooled rate: (E_i + kappa·ē) / (n_i + kappa).

    The posterior mean under a Beta prior of strength `kappa` at the pooled rate ē; NaN everywhere when n is all zero.
    """
    pooled = event_C.sum() / n_C.sum() if n_C.sum() > 0 else np.nan
    return np.where(n_C > 0, (event_C + kappa * pooled) / (n_C + kappa), pooled)


def cluster_weights(counts: ClusterCounts, config: Config) -> np.ndarray:
    """W(i), a float per cluster; exactly 1 for a cluster without evidence (README, method step 3).

    `error`, `error_all`: W(i) = (ê_i / ē)^alpha. `frontier`: (û_i / ū)^alpha, with u the usable questions.
    `uniform`: 1 everywhere. Without a single event in the pool nothing distinguishes clusters: 1 everywhere.
    """
    event_C = counts.usable_C if config.rule == "frontier" else counts.error_C
    if config.rule == "uniform" or event_C.sum() == 0:
        return np.ones(len(counts))
    pooled = event_C.sum() / counts.n_C.sum()
    rate_C = posterior_rate(event_C, counts.n_C, config.kappa)
    return np.where(counts.n_C > 0, (rate_C / pooled) ** config.alpha, 1.0)


def weights(history: History, cluster_N: np.ndarray, iteration: int, config: Config) -> np.ndarray:
    """Drawing weight of every question of the pool, a float per question.

    Questions of a cluster share W(i). Under `frontier` with history, a question seen before mixes in the probability
    that it gives a pair again, judged by its own last counts and discounted by their age.
    """
    weight_N = cluster_weights(history.counts, config)[cluster_N]
    seen = np.flatnonzero(history.seen_at_N >= 0)
    if config.rule != "frontier" or config.history == 0 or len(seen) == 0 or history.counts.usable_C.sum() == 0:
        return weight_N
    pooled = history.counts.usable_C.sum() / history.counts.n_C.sum()
    own = usable_probability(history.n_correct_N[seen], history.n_tried_N[seen])
    trust = config.history ** (iteration - history.seen_at_N[seen])
    weight_N[seen] = (weight_N[seen] + trust * (own / pooled) ** config.alpha) / (1 + trust)
    return weight_N


def usable_probability(n_correct: np.ndarray, n_tried: np.ndarray) -> np.ndarray:
    """P(0 < s' < K) for the next K rollouts of questions that gave s of K, elementwise.

    Beta-binomial predictive under Jeffreys' prior: s' ~ BetaBinomial(K, s + 1/2, K - s + 1/2).
    """
    a, b = n_correct + 0.5, n_tried - n_correct + 0.5
    none, every = betaln(a, b + n_tried), betaln(a + n_tried, b)
    return 1.0 - np.exp(none - betaln(a, b)) - np.exp(every - betaln(a, b))


def draw(weight_N: np.ndarray, n: int, rng: np.random.Generator, excluded_N: np.ndarray | None = None) -> np.ndarray:
    """Draw n questions without replacement with probability proportional to weight: exact, by Gumbel top-k.

    Adding independent Gumbel noise to log-weights and keeping the n largest is successive weighted sampling without
    replacement (Efraimidis & Spirakis 2006; Kool et al. 2019, section 2.2).

    Args:
        weight_N: non-negative; zero is never drawn.
        excluded_N: bool, True forbids a question.

    Returns:
        Indices in drawing order.

    Raises:
        RunError: fewer than n questions may be drawn.
    """
    if (weight_N < 0).any() or not np.isfinite(weight_N).all():
        raise ValueError("weights must be finite and non-negative")
    allowed_N = weight_N > 0 if excluded_N is None else (weight_N > 0) & ~excluded_N
    if allowed_N.sum() < n:
        raise RunError(
            f"sampler.n_questions asks for {n} questions, but only {allowed_N.sum()} of {len(weight_N)} may be drawn: "
            "lower it, or sampler.exclude_iterations, or give a larger pool"
        )
    # One number per question whatever is excluded, so that a question's noise does not depend on the others.
    noise_N = rng.gumbel(size=len(weight_N))
    key_N = np.where(allowed_N, np.log(np.where(allowed_N, weight_N, 1.0)) + noise_N, -np.inf)
    top = np.argpartition(-key_N, n - 1)[:n]
    return top[np.argsort(-key_N[top], kind="stable")]


def excluded(history: History, iteration: int, config: Config) -> np.ndarray:
    """Which questions the exclusion rule forbids: those drawn in the last `exclude_iterations` iterations."""
    return (history.drawn_at_N >= 0) & (history.drawn_at_N >= iteration - config.exclude_iterations)


def entropy_share(weight_C: np.ndarray, size_C: np.ndarray) -> float:
    """Entropy of the drawing distribution over questions, as a share of the uniform one's: 1 means random sampling."""
    p_C = weight_C / (weight_C * size_C).sum()
    entropy = -(size_C * p_C * np.log(np.where(p_C > 0, p_C, 1.0))).sum()
    return float(entropy / np.log(size_C.sum())) if size_C.sum() > 1 else 1.0
