"""Vectors of distinct texts -> the cluster of each question of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .. import settings
from ..errors import RunError
from ..table import Columns, column
from .backends import choose, sample
from .embed import Embedding

ALGORITHM = "k-means 2"  # part of a stored clustering's key: raise the number when the clusters change
STARTS_PER_CLUSTER = 20  # sampled vectors per cluster, from which initial centres are chosen
# Number of starts of K-Means, of which the best is kept: as many as cost STARTED vectors, 1 to MOST_STARTS.
MOST_STARTS, STARTED = 10, 200_000
SILHOUETTE_SAMPLE = 2000  # vectors; the cost is quadratic


@dataclass(frozen=True)
class Assignment(Columns):
    """The cluster of each question of the pool, 0 the largest."""

    cluster_N: np.ndarray = column(np.int64, "cluster of each question of the pool, 0 the largest")


@dataclass(frozen=True)
class Clustering:
    """A clustering and facts about it.

    Attributes:
        facts: backend, why (the reason for the backend), vectors, inertia, silhouette.
    """

    assignment: Assignment
    facts: dict


def fit(
    text_N: Sequence[str], embedding: Embedding, config: settings.Clusters, device: torch.device | None = None
) -> Clustering:
    """Cluster the questions' vectors by K-Means. Clusters are numbered by falling size; none is empty.

    Questions with the same knowledge points share a vector. Each distinct vector enters once, weighted by its number of
    questions: the same objective at a fraction of the work.

    Args:
        text_N: the embedded text of each question.
        device: for clusters.backend=gpu or auto; None: the CPU.

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
    best = min(tries, key=lambda partition: partition.inertia(vector_UD, weight_U))
    by_size = np.argsort(-np.bincount(best.label_U[row_N], minlength=n), kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[by_size] = np.arange(n)
    facts = {
        "backend": backend.name,
        "why": why,
        "vectors": len(embedding),
        "inertia": best.inertia(vector_UD, weight_U),
        "silhouette": silhouette(vector_UD, best.label_U, config.seed),
    }
    return Clustering(Assignment(rank[best.label_U[row_N]]), facts)


def first_centres(vector_UD: np.ndarray, weight_U: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Choose n initial centres, float32 [C, D]: greedy k-means++ (Arthur & Vassilvitskii 2007) among a sample."""
    from sklearn.cluster import kmeans_plusplus

    row_S, weight_S = sample(weight_U, STARTS_PER_CLUSTER * n, seed)
    if len(row_S) < n:  # a few vectors have nearly all the weight
        row_S, weight_S = np.arange(len(weight_U)), weight_U
    centre_CD, _ = kmeans_plusplus(vector_UD[row_S], n, sample_weight=weight_S, random_state=seed)
    return np.ascontiguousarray(centre_CD, dtype=np.float32)


def silhouette(vector_UD: np.ndarray, label_U: np.ndarray, seed: int) -> float | None:
    """Return the mean silhouette (Rousseeuw 1987) by cosine distance of a seeded sample of distinct vectors, -1 to 1.

    None where it is not defined: all sampled vectors are in one cluster, or each is in another one.
    """
    from sklearn.metrics import silhouette_score

    size = min(len(vector_UD), SILHOUETTE_SAMPLE)
    row_S = np.sort(np.random.default_rng(seed).choice(len(vector_UD), size, replace=False))
    n_seen = len(np.unique(label_U[row_S]))
    if not 1 < n_seen < size:
        return None
    return float(silhouette_score(vector_UD[row_S], label_U[row_S], metric="cosine"))
