"""The settings of the group `report`."""

from __future__ import annotations

from .base import group


@group
class Report:
    """What a run writes for readers besides its page."""

    tensorboard: bool = False
