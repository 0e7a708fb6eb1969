"""Which questions are rolled out together, and in which order: a stage's chunks are the units that ranks claim.

Chunks are the unit of reproducibility too: rows of one chunk share batches, and batches round. So what a chunk holds
and its number depend on the questions alone: not on the ranks, and not on what the run has learned either, for a stage
that goes on, or is repaired, must find the chunks that it has. Only the order of the claims is free.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

# A chunk takes this share of the questions that are left: several chunks for each of a few dozen ranks.
LEFT_SHARE = 1 / 64
# Cost of reading a token of the prompt, against one token more of each response: it is read once for all of them.
PROMPT_COST = 0.05


def cut(
    token_Q: Mapping[int, Sequence[int]], family: Callable[[int], str], largest: int, smallest: int
) -> list[list[int]]:
    """Questions in chunks, large ones first (guided self-scheduling, Polychronopoulos & Kuck 1987).

    A large chunk keeps the engine's batches full; small ones at the end leave something for whoever is free. A chunk
    holds prompts of one family, which start alike: the engine computes their common start once. Within a family like
    lengths stand together, for less padding.

    Args:
        token_Q: the prompt of each question.
        family: what tells prompts that start alike.
        largest, smallest: questions of a chunk; never more than `largest`, and fewer at the end of a family.
    """
    order = sorted(token_Q, key=lambda q: (family(q), -len(token_Q[q]), q))
    chunks, n_left = [], len(order)
    for _, group in itertools.groupby(order, key=family):
        own = list(group)
        while own:
            size = min(largest, max(smallest, math.ceil(n_left * LEFT_SHARE)))
            chunks.append(own[:size])
            own = own[size:]
            n_left -= len(chunks[-1])
    return chunks


def longest_first(
    chunks: Sequence[Sequence[int]], token_Q: Mapping[int, Sequence[int]], expected_Q: Mapping[int, float]
) -> list[int]:
    """Numbers of the chunks in the order of their expected cost: what is claimed last shall end soon.

    Args:
        expected_Q: tokens of a response that are expected of each question; of one that is not in it, as many as its
            prompt has: long questions tend to have long answers.
    """

    def cost(chunk):
        return sum(expected_Q.get(q, len(token_Q[q])) + PROMPT_COST * len(token_Q[q]) for q in chunk)

    return sorted(range(len(chunks)), key=lambda i: (-cost(chunks[i]), i))


def expected_tokens(tokens_N: np.ndarray, cluster_N: np.ndarray, question_Q: np.ndarray) -> dict[int, float]:
    """Tokens of a response to each of the questions, as far as the run can tell.

    Args:
        tokens_N: mean response length of the questions that it has seen, NaN of the others.
        cluster_N: the cluster of each question of the pool.
        question_Q: the questions that are asked for.

    Returns:
        A question's own mean, else that of its cluster's seen questions, else that of all; empty when none was seen.
    """
    seen = np.flatnonzero(~np.isnan(tokens_N))
    if len(seen) == 0:
        return {}
    n_C = np.bincount(cluster_N[seen], minlength=cluster_N.max() + 1)
    total_C = np.bincount(cluster_N[seen], weights=tokens_N[seen], minlength=len(n_C))
    mean_C = np.where(n_C > 0, total_C / np.maximum(n_C, 1), tokens_N[seen].mean())
    own_Q = tokens_N[question_Q]
    expected_Q = np.where(np.isnan(own_Q), mean_C[cluster_N[question_Q]], own_Q)
    return dict(zip(question_Q.tolist(), expected_Q.tolist(), strict=True))
