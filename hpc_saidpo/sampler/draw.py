"""Weights -> drawn questions: exactly weighted, without replacement, equal on numpy, CuPy and any number of ranks.

Every question i has an exponential clock E_i / w_i, and the n that ring first are drawn: successive sampling with
probability proportional to the weights (Efraimidis & Spirakis 2006), the same as Gumbel top-k (Kool et al. 2019), for
-log(E_i / w_i) is log w_i plus Gumbel noise. E_i = -log(1 - u_i), and u_i is a hash of the question's number: it
depends on the seed and on i alone. Weights are given as logarithms, so that any ratio of two of them can be computed.

The hash is integer arithmetic of the array API, in blocks. As E_i >= u_i, a question cannot be drawn if
log u_i - log w_i is larger than the logarithm of the n-th smallest clock so far. This comparison has a margin for the
rounding of the logarithms of any array library. The few candidates come to the host, which computes their clocks. So
every array library draws the same.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..errors import RunError

# Questions of one block: on a CPU as many as its cache holds, on a GPU enough to fill it.
HOST_BLOCK, DEVICE_BLOCK = 2**16, 2**22
TINY = 2.0**-60  # in place of a u of 0, whose logarithm is infinite; other u are 2^-53 or more
MARGIN = 1e-9  # of the comparison of logarithms; their rounding is smaller
Array = Any  # an array of numpy, CuPy or another library with the array API
# SplitMix64 (Steele, Lea & Flood 2014) as a function of (seed, counter).
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def draw(
    log_weight_N: Array, n: int, seed: int, excluded_N: Array | None = None, xp: Any = None, block: int | None = None
) -> np.ndarray:
    """Draw n questions without replacement with probability proportional to weight.

    Args:
        log_weight_N: logarithms of the weights, floats; -inf is never drawn.
        seed: 64 bits.
        excluded_N: bool, True forbids a question.
        xp: array-API namespace for the work: numpy, cupy; None: that of `log_weight_N`.
        block: questions of one block; the draw does not depend on it.

    Returns:
        Indices in drawing order, a numpy array.

    Raises:
        RunError: fewer than n questions may be drawn.
        ValueError: n is not positive, or a weight is infinite or NaN.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more, not {n}")
    xp = xp or namespace(log_weight_N)
    block = block or (HOST_BLOCK if xp is np else DEVICE_BLOCK)
    first, n_allowed = _First(n), 0
    for start in range(0, log_weight_N.shape[0], block):
        part = slice(start, min(start + block, log_weight_N.shape[0]))
        log_w = xp.asarray(log_weight_N[part], dtype=xp.float64)
        if not bool(xp.all(log_w < xp.inf)):
            raise ValueError("weights must be finite: their logarithms numbers, or -inf")
        if excluded_N is not None:
            log_w = xp.where(xp.asarray(excluded_N[part]), xp.full_like(log_w, -xp.inf), log_w)
        u, allowed = uniforms(seed, part.start, part.stop, xp), log_w > -xp.inf
        n_allowed += int(xp.count_nonzero(allowed))
        if first.full:
            allowed &= xp.log(xp.where(u > 0, u, xp.full_like(u, TINY))) <= log_w + first.latest
        row = xp.nonzero(allowed)[0]
        first.add(start + _on_host(row), *(_on_host(xp.take(x, row)) for x in (u, log_w)))
    if n_allowed < n:
        raise RunError(
            f"sampler.n_questions is {n}, but only {n_allowed} of {log_weight_N.shape[0]} questions may be drawn: "
            "lower it, or sampler.exclude_iterations, or use a larger pool"
        )
    return first.questions()


def uniforms(seed: int, start: int, stop: int, xp: Any = np) -> Array:
    """u_i in [0, 1) for start <= i < stop, float64: 53 bits of a hash of (seed, i)."""

    def constant(value: int) -> Array:
        return xp.asarray(value, dtype=xp.uint64)

    x = xp.arange(start + 1, stop + 1, dtype=xp.uint64)
    x *= constant(_GOLDEN)
    x += constant(seed)
    x ^= x >> constant(30)
    x *= constant(_MIX_1)
    x ^= x >> constant(27)
    x *= constant(_MIX_2)
    x ^= x >> constant(31)
    x >>= constant(11)
    return xp.asarray(x, dtype=xp.float64) * 2.0**-53


def namespace(array: Array) -> Any:
    """The array-API namespace of an array: the one that it declares, else its package (numpy, cupy)."""
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules[type(array).__module__.partition(".")[0]]


def _on_host(array: Array) -> np.ndarray:
    return array.get() if hasattr(array, "get") else np.asarray(array)


class _First:
    """The n first clocks to ring among those added so far; ties in the order of the questions.

    Attributes:
        full: whether there are n; then clocks whose logarithm is larger than `latest` do not matter.
    """

    def __init__(self, n: int):
        self.n, self.full, self.latest = n, False, np.inf
        self._index: list[np.ndarray] = []
        self._clock: list[np.ndarray] = []
        self._n_kept = 0

    def add(self, index: np.ndarray, u: np.ndarray, log_w: np.ndarray) -> None:
        self._index.append(index)
        self._clock.append(np.log(-np.log1p(-np.maximum(u, TINY))) - log_w)
        self._n_kept += len(index)
        if self._n_kept >= (2 * self.n if self.full else self.n):
            self._keep()

    def _keep(self) -> None:
        index, clock = np.concatenate(self._index), np.concatenate(self._clock)
        nth = np.partition(clock, self.n - 1)[self.n - 1]
        kept = clock <= nth
        self._index, self._clock, self._n_kept = [index[kept]], [clock[kept]], int(kept.sum())
        self.full, self.latest = True, float(nth) + MARGIN

    def questions(self) -> np.ndarray:
        index, clock = np.concatenate(self._index), np.concatenate(self._clock)
        return index[np.lexsort((index, clock))[: self.n]]
