"""Graded rollouts of a benchmark -> accuracy with its interval (README, method step 8)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from .records import Difficulty, settings

Z_95 = 1.959963984540054  # the 97.5 % quantile of the standard normal


@settings()
class Config:
    benchmarks: tuple[str, ...] = ("held_out",)
    samples: Annotated[int, Field(ge=1)] = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    every: Annotated[int, Field(ge=1)] = 1


def accuracy(difficulty: Difficulty) -> dict:
    """Mean pass rate over questions (pass@1 greedy for one sample, avg@k for k) and its 95 % interval.

    Returns:
        A flat dict: accuracy, low95, high95 (shares of 1), n_questions, n_samples.
    """
    n = len(difficulty)
    if n == 0:
        return {"accuracy": None, "low95": None, "high95": None, "n_questions": 0, "n_samples": 0}
    rate_Q = difficulty.pass_rate_Q
    mean = float(rate_Q.mean())
    if difficulty.n_tried_Q.max() == 1:
        low, high = wilson(int(difficulty.n_correct_Q.sum()), n)
    else:
        half = Z_95 * float(rate_Q.std(ddof=1)) / n**0.5 if n > 1 else 1.0
        low, high = max(0.0, mean - half), min(1.0, mean + half)
    return {
        "accuracy": mean,
        "low95": low,
        "high95": high,
        "n_questions": n,
        "n_samples": int(difficulty.n_tried_Q.max()),
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


def percent(share: float | None) -> str:
    """A share of 1, for reading; "-" where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def interval(accuracy: float | None, low95: float | None, high95: float | None) -> str:
    """Accuracy and its 95 % interval, for reading."""
    return "-" if accuracy is None else f"{percent(accuracy)} [{100 * low95:.1f}, {100 * high95:.1f}]"
