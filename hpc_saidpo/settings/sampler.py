"""The settings of the group `sampler`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Count, Name, Positive, group


@group
class Sampler:
    """The dynamic sampler: which questions an iteration explores."""

    rule: Name = "frontier_error"  # of sampler/rules.py, or package.module:name: `sampler.rules.find_rule` checks it
    alpha: Annotated[float, Field(ge=0)] = 3.0
    temper: bool = False
    history: Annotated[float, Field(ge=0, le=1)] = 0.8
    kappa: Annotated[float, Field(gt=0)] = 1.0
    thompson: bool = False
    n_questions: Positive = 1000
    exclude_iterations: Count = 0
