"""Vectors of distinct texts -> the cluster of each question of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .. import settings
from ..errors import RunError
from ..table import Columns, column
from .backends import choose, sampled
from .embed import Embedding

ALGORITHM = "k-means 2"  # part of a stored clustering's key: another number for what gives other clusters
STARTS_PER_CLUSTER = 20  # vectors that first centres are chosen among
MOST_STARTS, STARTED = 10, 200_000  # K-Means begins anew, and the best is kept; vectors in all: many vectors, once
SILHOUETTE_SAMPLE = 2000  # vectors: the cost is quadratic


@dataclass(frozen=True)
class Assignment(Columns):
    """The cluster of each question of the pool, 0 the largest."""

    cluster_N: np.ndarray = column(np.int64, "cluster of each question of the pool, 0 the largest")


@dataclass(frozen=True)
class Found:
    """A clustering, and how good it is.

    Attributes:
        facts: backend, why (it was chosen), vectors, inertia, silhouette.
    """

    assignment: Assignment
    facts: dict


def fit(
    text_N: Sequence[str], embedding: Embedding, config: settings.Clusters, device: torch.device | None = None
) -> Found:
    """K-Means over the questions' vectors. Clusters are numbered by falling size, none is empty.

    Questions with the same knowledge points share a vector, so each distinct vector enters once, weighted by its
    number of questions: the same objective at a fraction of the work.

    Raises:
        RunError: more clusters than questions; or clusters.backend cannot run here.
    """
    if config.n > len(text_N):
        raise RunError(f"clusters.n={config.n}, but the pool has {len(text_N)} questions: lower clusters.n")
    backend, why = choose(config.backend, device or torch.device("cpu"))
    row_of = {text: row for row, text in enumerate(embedding.text_U)}
    row_N = np.fromiter(map(row_of.__getitem__, text_N), np.int64, len(text_N))
    weight_U = np.bincount(row_N, minlength=len(embedding)).astype(np.float32)
    vector_UD, n = embedding.vector_UD, min(config.n, len(embedding))
    tries = []
    for start in range(max(1, min(MOST_STARTS, STARTED // len(embedding)))):
        seed = MOST_STARTS * config.seed + start
        tries.append(backend.fit(vector_UD, weight_U, first_centres(vector_UD, weight_U, n, seed), seed))
    found = min(tries, key=lambda partition: partition.inertia(vector_UD, weight_U))
    by_size = np.argsort(-np.bincount(found.label_U[row_N], minlength=n), kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[by_size] = np.arange(n)
    facts = {
        "backend": backend.name,
        "why": why,
        "vectors": len(embedding),
        "inertia": found.inertia(vector_UD, weight_U),
        "silhouette": silhouette(vector_UD, found.label_U, config.seed),
    }
    return Found(Assignment(rank[found.label_U[row_N]]), facts)


def first_centres(vector_UD: np.ndarray, weight_U: np.ndarray, n: int, seed: int) -> np.ndarray:
    """n vectors to start from: greedy k-means++ (Arthur & Vassilvitskii 2007) among a sample; float32 [C, D]."""
    from sklearn.cluster import kmeans_plusplus

    row_S, weight_S = sampled(weight_U, STARTS_PER_CLUSTER * n, seed)
    if len(row_S) < n:  # a few vectors hold nearly all the weight
        row_S, weight_S = np.arange(len(weight_U)), weight_U
    centre_CD, _ = kmeans_plusplus(vector_UD[row_S], n, sample_weight=weight_S, random_state=seed)
    return np.ascontiguousarray(centre_CD, dtype=np.float32)


def silhouette(vector_UD: np.ndarray, label_U: np.ndarray, seed: int) -> float | None:
    """Mean silhouette (Rousseeuw 1987) by cosine distance, of a seeded sample of distinct vectors; -1 to 1.

    None where it is not defined: the sample has one cluster only, or no two vectors of one.
    """
    from sklearn.metrics import silhouette_score

    size = min(len(vector_UD), SILHOUETTE_SAMPLE)
    row_S = np.sort(np.random.default_rng(seed).choice(len(vector_UD), size, replace=False))
    n_seen = len(np.unique(label_U[row_S]))
    if not 1 < n_seen < size:
        return None
    return float(silhouette_score(vector_UD[row_S], label_U[row_S], metric="cosine"))
