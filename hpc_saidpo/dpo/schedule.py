"""The schedule of a round: the pairs of each step and micro-batch, and the learning rate. The same on every rank."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .. import settings
from ..records import seeded

ALIKE = 0.75  # smallest width of a pair, relative to its micro-batch's first pair: narrower ones would be padding


def batches(width_B: np.ndarray, config: settings.Dpo, seed: int, iteration: int) -> list[list[list[int]]]:
    """The micro-batches of each optimizer step, as pair indices.

    The pairs of a step depend on the seed and `dpo.batch_pairs` alone, not on the cut into micro-batches.

    Args:
        width_B: places of each pair in its rows (`Examples.width_B`).
    """
    steps = []
    for epoch in range(config.epochs):
        order = seeded(seed, iteration, "epoch", epoch).permutation(len(width_B))
        for start in range(0, len(order), config.batch_pairs):
            steps.append(micro_batches(order[start : start + config.batch_pairs].tolist(), width_B, config))
    return steps


def micro_batches(pairs: Iterable[int], width_B: np.ndarray, config: settings.Dpo) -> list[list[int]]:
    """Cut pairs into micro-batches of similar length, longest first.

    A micro-batch has at most `dpo.micro_pairs` pairs. With `dpo.micro_tokens` it has as many pairs as fit into that
    many places if every pair is as wide as the longest, and at least one. A much narrower pair begins the next one.
    """
    order = sorted(pairs, key=lambda i: (-width_B[i], i))
    cut: list[list[int]] = []
    start = 0
    while start < len(order):
        widest = int(width_B[order[start]])
        n = max(1, config.micro_tokens // widest) if config.micro_tokens else config.micro_pairs
        cut.append([i for i in order[start : start + n] if width_B[i] >= ALIKE * widest])
        start += len(cut[-1])
    return cut


def rate(step: int, n_steps: int, warmup: float) -> float:
    """Learning rate at a step, as a share of the peak: linear warm-up, then cosine towards zero; always above zero."""
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / (n_steps - n_warmup)))
