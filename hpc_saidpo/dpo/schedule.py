"""A round's schedule: which pairs in which step and micro-batch, and the learning rate. The same on every rank."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .. import settings
from ..records import seeded

ALIKE = 0.75  # of the width of a micro-batch's first pair: less would be mostly padding


def batches(width_B: np.ndarray, config: settings.Dpo, seed: int, iteration: int) -> list[list[list[int]]]:
    """For every optimizer step its micro-batches of pair indices.

    Which pairs make a step depends on the seed and `dpo.batch_pairs` alone, whatever the micro-batches.

    Args:
        width_B: places that each pair takes up in a row (`Examples.width_B`).
    """
    steps = []
    for epoch in range(config.epochs):
        order = seeded(seed, iteration, "epoch", epoch).permutation(len(width_B))
        for start in range(0, len(order), config.batch_pairs):
            steps.append(micro_batches(order[start : start + config.batch_pairs].tolist(), width_B, config))
    return steps


def micro_batches(pairs: Iterable[int], width_B: np.ndarray, config: settings.Dpo) -> list[list[int]]:
    """Pairs cut into micro-batches of like length, longest first.

    Each holds at most `dpo.micro_pairs` pairs; or, with `dpo.micro_tokens`, as many as fit into that many places with
    every row as wide as the longest, and one pair at least. A pair much narrower than that begins the next.
    """
    order = sorted(pairs, key=lambda i: (-width_B[i], i))
    found, start = [], 0
    while start < len(order):
        widest = int(width_B[order[start]])
        n = max(1, config.micro_tokens // widest) if config.micro_tokens else config.micro_pairs
        found.append([i for i in order[start : start + n] if width_B[i] >= ALIKE * widest])
        start += len(found[-1])
    return found


def rate(step: int, n_steps: int, warmup: float) -> float:
    """Learning rate at a step, as a share of the peak: linear warm-up, then cosine to zero; never zero itself."""
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / (n_steps - n_warmup)))
