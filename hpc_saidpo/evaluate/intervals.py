"""Accuracy and other proportions with their 95 % intervals."""

from __future__ import annotations

import numpy as np

from ..records import Difficulty

Z_95 = 1.959963984540054  # the 97.5 % quantile of the standard normal


def accuracy(measured: Difficulty) -> dict:
    """Mean pass rate over questions (pass@1 greedy for one sample, avg@k for k) and its 95 % interval.

    With one sample per question, the interval is Wilson's. With several, it is mean ± 1.96 standard errors over the
    questions, because eight responses to one question are not eight questions. If all pass rates are equal, that
    interval would be empty; then it is Wilson's, as if each question had been tried once.

    Returns:
        A flat dict: accuracy, low95, high95 (shares of 1), n_questions, n_samples.
    """
    n = len(measured)
    if n == 0:
        return {"accuracy": None, "low95": None, "high95": None, "n_questions": 0, "n_samples": 0}
    rate_Q = measured.pass_rate_Q
    mean = float(rate_Q.mean())
    if measured.n_tried_Q.max() == 1 or np.ptp(rate_Q) == 0:
        low, high = wilson(n * mean, n)
    else:
        half = Z_95 * float(rate_Q.std(ddof=1)) / n**0.5
        low, high = max(0.0, mean - half), min(1.0, mean + half)
    return {
        "accuracy": mean,
        "low95": low,
        "high95": high,
        "n_questions": n,
        "n_samples": int(measured.n_tried_Q.max()),
    }


def wilson(n_correct: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927): inside [0, 1], sane at 0 and n."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = n_correct / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # Rounding must not put the estimate outside its own interval.
    return max(0.0, min(p, float(centre - half))), min(1.0, max(p, float(centre + half)))
