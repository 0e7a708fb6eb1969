"""The chance of a question to be drawn."""

from __future__ import annotations

import numpy as np

STEPS = 100


def inclusion(weight_G: np.ndarray, size_G: np.ndarray, n: int) -> np.ndarray:
    """Chance of each question to be among n drawn without replacement, a float per group of equal weight.

    It is 1 - exp(-w·tau), with tau such that the chances add up to n: by time tau, n of the exponential clocks of
    `draw` have rung on average. That is exact if the n-th clock rings at tau; the n-th clock varies, so the error is of
    the order of 1/n (Rosén 1997 on order sampling).

    Args:
        weight_G: non-negative; 0 if the questions may not be drawn.
        size_G: number of questions in the group.
        n: at most the number of questions with a weight above 0.
    """
    weight_G, size_G = np.asarray(weight_G, dtype=np.float64), np.asarray(size_G, dtype=np.float64)
    if n >= size_G[weight_G > 0].sum():
        return np.where(weight_G > 0, 1.0, 0.0)
    tau = n / (size_G * weight_G).sum()
    for _ in range(STEPS):  # Newton's method from the left on a concave rising function: it never overshoots
        missing = n + (size_G * np.expm1(-weight_G * tau)).sum()
        if missing <= 1e-9 * n:
            break
        tau += missing / (size_G * weight_G * np.exp(-weight_G * tau)).sum()
    return -np.expm1(-weight_G * tau)
