"""The settings of the group `probe`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import group


@group
class Probe:
    """The sample of the pool that each iteration probes."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    stratified: bool = False
