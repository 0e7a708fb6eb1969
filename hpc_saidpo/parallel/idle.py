"""Idle shares: the part of a stage's time in which a rank had nothing to do."""

from __future__ import annotations

import time
from collections.abc import Sequence


class Work:
    """The time in which this rank has had work items, by this rank's clock."""

    def __init__(self):
        self._started = self._ended = time.monotonic()
        self._busy_s, self._n_items, self._begun = 0.0, 0, 0.0

    def begin(self) -> None:
        """Note that this rank has one item more."""
        if self._n_items == 0:
            self._begun = time.monotonic()
        self._n_items += 1

    def end(self) -> None:
        """Note that this rank has finished an item."""
        self._n_items -= 1
        if self._n_items == 0:
            self._ended = time.monotonic()
            self._busy_s += self._ended - self._begun

    def elapsed(self) -> tuple[float, float, float]:
        """Return the seconds since this rank started, the seconds since it ended, and the seconds of work."""
        now = time.monotonic()
        return now - self._started, now - self._ended, self._busy_s


def idle_shares(elapsed_W: Sequence[tuple[float, float, float]]) -> list[float]:
    """Return each rank's idle share of the time from the first start to the last end.

    Args:
        elapsed_W: `Work.elapsed` of every rank, all read at the same moment: clocks of different nodes may differ.
    """
    span_s = max(started for started, *_ in elapsed_W) - min(ended for _, ended, _ in elapsed_W)
    return [max(0.0, 1 - busy_s / span_s) if span_s > 0 else 0.0 for *_, busy_s in elapsed_W]
