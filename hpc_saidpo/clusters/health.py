"""Figures and warnings that show whether the sampler can use a clustering: no dominant cluster, few tiny ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

SMALL = 5  # questions
DOMINANT = 0.5  # share of the pool
MIN_PROBED = 2.0  # questions per cluster in a probe, on average: with fewer, most clusters have no evidence


def health(
    cluster_N: np.ndarray, tags: Sequence[Sequence[str]], n_requested: int, probed: float, facts: dict | None = None
) -> dict:
    """Return figures of a clustering, the frequent tags of its clusters, and warnings that name the remedy.

    Args:
        tags: knowledge points of each question.
        n_requested: clusters.n.
        probed: probe.fraction.
        facts: `Clustering.facts`; None for a single cluster.
    """
    size_C = np.bincount(cluster_N)
    share_C = size_C / size_C.sum()
    counters = [Counter() for _ in size_C]
    for cluster, points in zip(cluster_N, tags, strict=True):
        counters[cluster].update(points)
    report = {
        "n_clusters": len(size_C),
        "sizes": size_C.tolist(),
        "largest_share": float(share_C.max()),
        "effective_clusters": float(np.exp(-(share_C * np.log(np.where(share_C > 0, share_C, 1))).sum())),
        "clusters_under_5": int((size_C < SMALL).sum()),
        "probed_per_cluster": probed * len(cluster_N) / len(size_C),
        "top_tags": [[tag for tag, _ in counter.most_common(3)] for counter in counters],
        **(facts or {}),
    }
    return {**report, "warnings": list(_warnings(report, n_requested, probed)) if len(size_C) > 1 else []}


def _warnings(report: dict, n_requested: int, probed: float) -> Iterator[str]:
    n, small = report["n_clusters"], report["clusters_under_5"]
    if n < n_requested:
        yield f"clusters.n={n_requested}, but the pool has only {n} distinct sets of knowledge points: {n} clusters"
    if report["largest_share"] > DOMINANT:
        yield (
            f"one cluster holds {report['largest_share']:.0%} of the pool: sampling from it is nearly uniform; raise "
            "clusters.n"
        )
    if small > n / 2:
        yield f"{small} of {n} clusters hold under {SMALL} questions: lower clusters.n"
    if report["probed_per_cluster"] < MIN_PROBED:
        needed = min(1.0, MIN_PROBED * n / sum(report["sizes"]))
        yield (
            f"a probe contains {report['probed_per_cluster']:.1f} questions of a cluster on average: error rates of "
            f"most clusters will be guesses; raise probe.fraction from {probed:g} to {needed:.2g}, or lower clusters.n"
        )


def describe(report: dict) -> str:
    """Return a line for the console."""
    silhouette = report.get("silhouette")
    return (
        f"{report['n_clusters']} clusters, effective number {report['effective_clusters']:.1f}, largest "
        f"{report['largest_share']:.0%}, {report['clusters_under_5']} under {SMALL} questions, "
        f"{report['probed_per_cluster']:.1f} probed per cluster"
        + ("" if silhouette is None else f", silhouette {silhouette:.2f}")
    )
