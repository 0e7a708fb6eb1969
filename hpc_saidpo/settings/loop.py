"""The settings of the group `loop`."""

from __future__ import annotations

from typing import Literal

from .base import Positive, group


@group
class Loop:
    """The iterations of a run, and where it stops."""

    iterations: Positive = 3
    stop_after: Literal["prepare", "base", "probe", "draw", "explore", "pairs", "policy", "evaluate"] | None = None
    on_signature: Literal["warn", "stop"] = "warn"
    keep: Literal["all", "last", "best"] = "all"
