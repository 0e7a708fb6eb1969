"""What may be set of the sampler."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..records import settings


@settings()
class Config:
    rule: Literal["error", "error_all", "frontier", "frontier_error", "uniform"] = "error"
    alpha: Annotated[float, Field(ge=0)] = 2.0
    history: Annotated[float, Field(ge=0, le=1)] = 0.5
    kappa: Annotated[float, Field(gt=0)] = 4.0
    thompson: bool = False
    n_questions: Annotated[int, Field(ge=1)] = 1000
    exclude_iterations: Annotated[int, Field(ge=0)] = 0
