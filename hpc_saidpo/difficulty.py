"""Graded rollouts -> self-aware difficulty (method, step 2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from . import settings
from .records import CORRECT, UNGRADABLE, Difficulty, Rollouts

# Sort keys, harder first: a low pass rate, many steps, many tokens, a long time.
KEYS: dict[str, Callable[[Difficulty], np.ndarray]] = {
    "pass_rate": lambda d: d.pass_rate_Q,
    "steps": lambda d: -d.steps_Q,
    "tokens": lambda d: -d.tokens_Q,
    "seconds": lambda d: -d.seconds_Q,
}


def measure(rollouts: Rollouts) -> Difficulty:
    """Return the difficulty of every question with at least one gradable rollout.

    Ungradable rollouts (the gold answer itself cannot be parsed) say nothing about the policy and are left out.
    """
    gradable = rollouts.verdict_R != UNGRADABLE
    question_R = rollouts.question_R[gradable]
    question_Q, inverse_R = np.unique(question_R, return_inverse=True)
    n_tried_Q = np.bincount(inverse_R, minlength=len(question_Q))

    def total_Q(column_R: np.ndarray) -> np.ndarray:
        return np.bincount(inverse_R, weights=column_R[gradable].astype(np.float64), minlength=len(question_Q))

    return Difficulty(
        question_Q=question_Q,
        n_tried_Q=n_tried_Q,
        n_correct_Q=total_Q(rollouts.verdict_R == CORRECT).astype(np.int64),
        steps_Q=total_Q(rollouts.n_steps_R) / n_tried_Q,
        tokens_Q=total_Q(rollouts.n_tokens_R) / n_tried_Q,
        seconds_Q=total_Q(rollouts.seconds_R) / n_tried_Q,
    )


def ungradable(rollouts: Rollouts) -> np.ndarray:
    """Return the questions, by index, of whose rollouts none could be graded."""
    gradable = rollouts.verdict_R != UNGRADABLE
    return np.setdiff1d(rollouts.question_R[~gradable], rollouts.question_R[gradable])


def in_band(difficulty: Difficulty, config: settings.Difficulty) -> np.ndarray:
    """Return a bool per question: neither too hard nor too easy, too_hard < p(x) < too_easy.

    With the default bounds this is 0 < s < K.
    """
    return (difficulty.pass_rate_Q > config.too_hard) & (difficulty.pass_rate_Q < config.too_easy)


def hardest_first(difficulty: Difficulty, config: settings.Difficulty, rng: np.random.Generator) -> np.ndarray:
    """Return positions into `difficulty`, hardest first, compared lexicographically by `config.order`.

    Equal questions keep the pool's order, so the result depends on nothing else. Only the key `random` uses `rng`.
    """
    keys = [difficulty.question_Q]
    for name in reversed(config.order):
        keys.append(rng.random(len(difficulty)) if name == "random" else KEYS[name](difficulty))
    return np.lexsort(keys)


def proxy_correlation(difficulty: Difficulty, name: str) -> float | None:
    """Return Spearman's rank correlation of the pass rate with another key of difficulty; ties have their mean rank.

    It is negative where the proxy agrees with the pass rate: the policy often fails on long responses. It is None where
    one of the two is the same for all questions.

    Args:
        name: steps, tokens or seconds.
    """
    ranks = [_mean_ranks(difficulty.pass_rate_Q), _mean_ranks(-KEYS[name](difficulty))]
    if any(len(np.unique(rank_Q)) < 2 for rank_Q in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(value_Q: np.ndarray) -> np.ndarray:
    _, inverse_Q, count = np.unique(value_Q, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[inverse_Q]


def pass_at_k(n_tried: ArrayLike, n_correct: ArrayLike, k: int) -> np.ndarray:
    """Return the unbiased pass@k = 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, eq. 1), elementwise.

    Raises:
        ValueError: k < 1, or k is larger than the number of rollouts of a question.
    """
    from scipy.special import gammaln  # here, because the check of a configuration must not wait for scipy

    n, c = np.asarray(n_tried), np.asarray(n_correct)
    if k < 1 or (n < k).any():
        raise ValueError(f"pass@{k} needs 1 <= k <= the number of rollouts ({n.min() if n.size else 0})")
    wrong = n - c
    # Log of a ratio of binomials. Where fewer than k are wrong, every draw of k holds a correct one.
    log_ratio = (
        gammaln(np.maximum(wrong, k) + 1) - gammaln(np.maximum(wrong, k) - k + 1) - gammaln(n + 1) + gammaln(n - k + 1)
    )
    return np.where(wrong < k, 1.0, np.maximum(0.0, -np.expm1(log_ratio)))
