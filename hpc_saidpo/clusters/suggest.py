"""Comparison of several numbers of clusters on one embedding, and a suggestion."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch

from .. import settings
from .embed import Embedding
from .fit import fit
from .health import DOMINANT, MIN_PROBED, health

MAX_SMALL = 0.1  # largest share of clusters with under 5 questions


def sweep(
    text_N: Sequence[str],
    embedding: Embedding,
    ns: Sequence[int],
    config: settings.Clusters,
    probed: float,
    device: torch.device,
) -> Iterator[dict]:
    """Yield the health of the pool's clusters (`health`) for each n, with the key n.

    Args:
        probed: probe.fraction.

    Raises:
        RunError: as `fit`.
    """
    for n in ns:
        clustering = fit(text_N, embedding, dataclasses.replace(config, n=n), device)
        yield {"n": n, **health(clustering.assignment.cluster_N, [()] * len(text_N), n, probed, clustering.facts)}


def suggest(rows: Sequence[dict]) -> tuple[int, str]:
    """Suggest an n of a sweep. Returns it and the reason, in words.

    Among the clusterings with enough probed questions per cluster, no dominant cluster and few tiny ones, this is the
    one with the largest silhouette.
    """
    good = [
        row
        for row in rows
        if row["probed_per_cluster"] >= MIN_PROBED
        and row["largest_share"] <= DOMINANT
        and row["clusters_under_5"] <= MAX_SMALL * row["n_clusters"]
    ]
    if not good:
        most = max(rows, key=lambda row: (row["probed_per_cluster"], -row["n"]))
        return most["n"], (
            f"no n has {MIN_PROBED:g} probed questions per cluster on average, a largest cluster of at most "
            f"{DOMINANT:.0%} of the pool, and at most {MAX_SMALL:.0%} of the clusters under 5 questions; "
            f"{most['n']} has the most probed questions: raise probe.fraction, or try other n"
        )
    best = max(good, key=lambda row: (-2 if row["silhouette"] is None else row["silhouette"], row["n"]))
    shown = "" if best["silhouette"] is None else f" (silhouette {best['silhouette']:.3f})"
    return best["n"], (
        f"the most separate clusters{shown} of the {len(good)} of {len(rows)} with {MIN_PROBED:g} probed questions per "
        f"cluster or more, no dominant cluster, and at most {MAX_SMALL:.0%} of the clusters under 5 questions"
    )
