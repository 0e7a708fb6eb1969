"""How much of a stage each rank had something to do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence


class Work:
    """This rank's time at work on the items that it claimed, by a clock of its own."""

    def __init__(self):
        self._started = self._ended = time.monotonic()
        self._busy_s = 0.0

    def at(self, items: Iterable[int]) -> Iterator[int]:
        """The same items; an item is at work until the next one is asked for."""
        for item in items:
            begun = time.monotonic()
            yield item
            self._ended = time.monotonic()
            self._busy_s += self._ended - begun

    def now(self) -> tuple[float, float, float]:
        """Seconds since this rank started, seconds since it ended, seconds at work."""
        now = time.monotonic()
        return now - self._started, now - self._ended, self._busy_s


def shares(seen_W: Sequence[tuple[float, float, float]]) -> list[float]:
    """The idle share of each rank, from the start of the first one to the end of the last one.

    Args:
        seen_W: `Work.now` of every rank, all at one moment: clocks of several nodes need not agree.
    """
    span_s = max(started for started, *_ in seen_W) - min(ended for _, ended, _ in seen_W)
    return [max(0.0, 1 - busy_s / span_s) if span_s > 0 else 0.0 for *_, busy_s in seen_W]
