"""The settings of the group `pairs`."""

from __future__ import annotations

from typing import Literal

from .base import Positive, group


@group
class Pairs:
    """The choice of preference pairs from the rollouts."""

    per_question: Positive = 1
    choice: Literal["random", "closest_length"] = "random"
    budget: Positive | None = None
