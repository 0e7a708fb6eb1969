"""The settings of the group `pairs`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Positive, group


@group
class Pairs:
    """The choice of preference pairs from the rollouts."""

    per_question: Positive = 1
    choice: Literal["random", "closest_length"] = "random"
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    budget: Positive | None = None
