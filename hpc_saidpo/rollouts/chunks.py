"""Chunks of questions: the units of work that ranks claim in a rollout stage, and the order of the claims.

The number and the content of a chunk depend on the questions alone, not on the ranks and not on what the run has
learned: a stage that resumes, or is repaired, must find the same chunks. Only their order is free. With
run.deterministic a chunk is also the unit of batches: numbers are rounded differently in another batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..settings.rollouts import Rollouts

# A chunk takes this share of the remaining questions: several chunks for each of a few dozen ranks.
REMAINING_SHARE = 1 / 64
LEAST_FAMILY = 8  # prompts that begin alike, for a start of their own
# Cost of a prompt token, relative to one more token in each response: a prompt is read once for all its responses.
PROMPT_COST = 0.05


def next_size(n_left: int, largest: int, smallest: int) -> int:
    """Return the number of questions in the next chunk, of n_left questions that are in no chunk yet."""
    return min(largest, max(smallest, math.ceil(n_left * REMAINING_SHARE)))


def count(n: int, largest: int, smallest: int) -> int:
    """Return the number of chunks of n questions in one family: so many ranks have work."""
    n_chunks = 0
    while n > 0:
        n -= next_size(n, largest, smallest)
        n_chunks += 1
    return n_chunks


def too_many_ranks(n_ranks: int, n_questions: int, config: Rollouts, stage: str) -> str:
    """Return a message if a stage has fewer chunks than ranks, with the number of ranks that fits; "" otherwise.

    Args:
        n_questions: number of questions in the stage.
        stage: name of the stage.
    """
    n_chunks = count(n_questions, *config.chunk_bounds(stage))
    if n_ranks <= n_chunks:
        return ""
    return (
        f"{n_ranks} ranks, but {stage} has {n_chunks} chunks of rollouts ({n_questions} questions): at most {n_chunks} "
        "ranks have work. Start fewer ranks, or lower rollouts.min_chunk_questions (or rollouts.chunk_questions)"
    )


def cut(
    token_Q: Mapping[int, Sequence[int]], family: Callable[[int], str], largest: int, smallest: int
) -> list[list[int]]:
    """Cut questions into chunks, large ones first (guided self-scheduling, Polychronopoulos & Kuck 1987).

    Large chunks need few claims and files; the small ones at the end leave work for ranks that become free. A chunk
    contains prompts of one family, which begin alike: the engine computes their common prefix once. Within a family
    questions are sorted by length, for less padding.

    Args:
        token_Q: the prompt of each question, as token ids.
        family: question -> a name that is equal for prompts that begin alike.
        largest, smallest: bounds of the questions in a chunk; the last chunk of a family may be smaller.
    """
    order = sorted(token_Q, key=lambda q: (family(q), -len(token_Q[q]), q))
    chunks, n_left = [], len(order)
    for _, group in itertools.groupby(order, key=family):
        rest = list(group)
        while rest:
            size = next_size(n_left, largest, smallest)
            chunks.append(rest[:size])
            rest = rest[size:]
            n_left -= len(chunks[-1])
    return chunks


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Return the number of tokens that all prompts begin with; at least one token of each prompt is not counted."""
    rows = [list(prompt) for prompt in prompts]
    first, last = min(rows), max(rows)  # a prefix of the lexicographic extremes is a prefix of all
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def starts(token_Q: Mapping[int, Sequence[int]], family: Callable[[int], str]) -> dict[int, int]:
    """Return for each question the number of tokens at the beginning of its prompt that the engine computes once.

    They are those of its family. Small families have what all prompts begin with: a start that few prompts have would
    save little, and hold one of the few places for starts.

    Args:
        family: see `cut`.
    """
    by_family: dict[str, list[int]] = {}
    for q in token_Q:
        by_family.setdefault(family(q), []).append(q)
    of_all = common_prefix(list(token_Q.values())) if token_Q else 0
    start_Q: dict[int, int] = {}
    for members in by_family.values():
        is_large = len(members) >= LEAST_FAMILY
        start = common_prefix([token_Q[q] for q in members]) if is_large else of_all
        start_Q |= dict.fromkeys(members, start)
    return start_Q


def longest_first(
    chunks: Sequence[Sequence[int]], token_Q: Mapping[int, Sequence[int]], expected_Q: Mapping[int, float]
) -> list[int]:
    """Indices of the chunks by their expected cost, highest first: the chunk that is claimed last should end soon.

    Args:
        expected_Q: expected tokens of a response, by question. A question that is not in it is expected to have
            responses as long as its prompt: long questions tend to have long answers.
    """

    def cost(chunk: Sequence[int]) -> float:
        return sum(expected_Q.get(q, len(token_Q[q])) + PROMPT_COST * len(token_Q[q]) for q in chunk)

    return sorted(range(len(chunks)), key=lambda i: (-cost(chunks[i]), i))


def expected_tokens(tokens_N: np.ndarray, cluster_N: np.ndarray, question_Q: np.ndarray) -> dict[int, float]:
    """Expected tokens of a response to each question, from the responses that the run has seen.

    Args:
        tokens_N: mean response length of each question of the pool; NaN when the run has seen no response.
        cluster_N: cluster of each question of the pool.
        question_Q: indices of the questions.

    Returns:
        For each question its mean length, else the mean over its cluster, else the mean over all questions; an empty
        dictionary when the run has seen no response at all.
    """
    seen = np.flatnonzero(~np.isnan(tokens_N))
    if len(seen) == 0:
        return {}
    n_C = np.bincount(cluster_N[seen], minlength=cluster_N.max() + 1)
    total_C = np.bincount(cluster_N[seen], weights=tokens_N[seen], minlength=len(n_C))
    mean_C = np.where(n_C > 0, total_C / np.maximum(n_C, 1), tokens_N[seen].mean())
    tokens_Q = tokens_N[question_Q]
    expected_Q = np.where(np.isnan(tokens_Q), mean_C[cluster_N[question_Q]], tokens_Q)
    return dict(zip(question_Q.tolist(), expected_Q.tolist(), strict=True))
