"""The settings of the group `difficulty`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import group


@group
class Difficulty:
    """Self-aware difficulty: the order of the pairs, and the band of pass rates of questions that become pairs."""

    order: Annotated[tuple[Literal["pass_rate", "steps", "tokens", "seconds", "random"], ...], Field(min_length=1)] = (
        "pass_rate",
        "steps",
        "tokens",
    )
    too_hard: Annotated[float, Field(ge=0, le=1)] = 0.0
    too_easy: Annotated[float, Field(ge=0, le=1)] = 1.0

    def __post_init__(self):
        if self.too_hard >= self.too_easy:
            raise ValueError(f"too_hard ({self.too_hard}) must be below too_easy ({self.too_easy})")
