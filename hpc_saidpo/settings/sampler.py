"""The settings of the group `sampler`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Count, Positive, group


@group
class Sampler:
    """The dynamic sampler: which questions an iteration explores."""

    rule: Literal["error", "error_all", "frontier", "frontier_error", "uniform"] = "error"
    alpha: Annotated[float, Field(ge=0)] = 2.0
    history: Annotated[float, Field(ge=0, le=1)] = 0.5
    kappa: Annotated[float, Field(gt=0)] = 4.0
    thompson: bool = False
    n_questions: Positive = 1000
    exclude_iterations: Count = 0
