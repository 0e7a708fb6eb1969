"""The settings of the group `run`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ..names import require_name
from .base import Count, Name, group


@group
class Run:
    """The run folder, and settings of the whole program."""

    root: Name = "runs"
    name: Annotated[str, AfterValidator(require_name)] = "saidpo"
    seed: Count = 0
    deterministic: bool = False
    threads: Count = 0
    device: Literal["auto", "gpu", "cpu"] = "auto"
    accept_changes: bool = False
    grace_s: Annotated[float, Field(ge=0)] = 240.0
    message_chars: Annotated[int, Field(ge=200)] = 10_000
