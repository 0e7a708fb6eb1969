"""How many clusters? Clusterings of one embedding for several n, and which of them to take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch

from .. import settings
from .embed import Embedding
from .fit import fit
from .health import DOMINANT, MIN_PROBED, health

MAX_SMALL = 0.1  # share of the clusters that may hold next to nothing


def sweep(
    text_N: Sequence[str],
    embedding: Embedding,
    ns: Sequence[int],
    config: settings.Clusters,
    probed: float,
    device: torch.device,
) -> Iterator[dict]:
    """The health of the pool's clusters (`health`) for each n, with the n asked for.

    Args:
        probed: probe.fraction.

    Raises:
        RunError: as `fit`.
    """
    for n in ns:
        found = fit(text_N, embedding, dataclasses.replace(config, n=n), device)
        yield {"n": n, **health(found.assignment.cluster_N, [()] * len(text_N), n, probed, found.facts)}


def suggest(rows: Sequence[dict]) -> tuple[int, str]:
    """An n of a sweep, and why.

    Of those that a probe reaches, none dominant and few starved, the one whose clusters are the most separate.
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
            f"none fits: {MIN_PROBED:g} probed questions per cluster on average, the largest at most {DOMINANT:.0%} of "
            f"the pool, at most {MAX_SMALL:.0%} under 5 questions; {most['n']} is the best reached by the probe: raise "
            "probe.fraction, or try other n"
        )
    best = max(good, key=lambda row: (-2 if row["silhouette"] is None else row["silhouette"], row["n"]))
    shown = "" if best["silhouette"] is None else f" (silhouette {best['silhouette']:.3f})"
    return best["n"], (
        f"the most separate clusters{shown} of the {len(good)} of {len(rows)} with {MIN_PROBED:g} probed questions per "
        f"cluster or more, none dominant, at most {MAX_SMALL:.0%} of them under 5 questions"
    )
