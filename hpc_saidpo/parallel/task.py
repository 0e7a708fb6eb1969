"""The work items of a stage: how many are done, and which rank has worked on which one for how long."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ALL_RANKS = -1  # in place of a rank: the ranks work on the item together
SILENT_FACTOR, SILENT_S = 3.0, 30.0  # a rank is silent after so many times the longest item, but not before so long


@dataclass(frozen=True)
class Silence:
    """A rank that has worked on one item for much longer than any rank on any other item.

    Attributes:
        rank: its number; ALL_RANKS for an item that the ranks work on together.
        item: name of the item: the number of a chunk, an optimizer step.
        seconds: since it began the item.
        longest_s: longest time that an item has taken.
    """

    rank: int
    item: int
    seconds: float
    longest_s: float


@dataclass(frozen=True)
class Units:
    """The parts of the items that a person counts: questions of chunks, pairs of batches.

    Attributes:
        name: what they are, in the plural.
        total: their number in all items of the stage.
        of_item: their number in each item that is left.
        is_part: more items will follow, and it is not known yet how many.
    """

    name: str
    total: int
    of_item: Sequence[int]
    is_part: bool = False


class Task:
    """The work items of a stage. Root has the facts of all ranks. Several threads may call the methods.

    Args:
        label: the stage in words.
        total: number of items, those included that were done before this start.
        n_done: number of those.
        names: name of each item that is left, for messages; None: an item is named by its index.
        advance: called after each finished item.
        units: what a person counts; None: the items themselves.

    Attributes:
        n_done: number of finished items.
        n_units: number of finished units.
        counts: sums of what the ranks have counted in their items (`World.count`).
        work: busy seconds and tokens of each rank in its finished items.
        longest_s: longest time that an item has taken; 0 before one is finished.
    """

    def __init__(
        self,
        label: str = "",
        total: int = 0,
        n_done: int = 0,
        names: Sequence[int] | None = None,
        advance: Callable[[], object] = lambda: None,
        units: Units | None = None,
    ):
        self.label, self.total, self.n_done, self.n_before = label, total, n_done, n_done
        self.units = units or Units("chunks", total, ())
        self.n_units = n_done if units is None else units.total - sum(units.of_item)
        self.n_units_before = self.n_units
        self.counts: Counter[str] = Counter()
        self.work: dict[int, tuple[float, float]] = {}
        self.longest_s, self.started = 0.0, time.monotonic()
        self._names, self._advance = names, advance
        self._begun: dict[tuple[int, int], float] = {}  # rank and item -> when
        self._busy_since: dict[int, float] = {}  # rank -> since when its time is not in `work`
        self._lock = threading.Lock()

    def begin(self, rank: int, index: int) -> None:
        """Note that a rank begins an item."""
        with self._lock:
            self._begun[rank, index] = time.monotonic()
            self._busy_since.setdefault(rank, self._begun[rank, index])

    def end(self, rank: int, index: int, counts: Mapping[str, float] | None = None) -> None:
        """Note that a rank has finished an item. An item that it had not begun is ignored.

        Args:
            counts: what it has counted in the item.
        """
        with self._lock:
            begun = self._begun.pop((rank, index), None)
            if begun is None:
                return
            now, counted = time.monotonic(), counts or {}
            busy_s, tokens = self.work.get(rank, (0.0, 0.0))
            # A rank may have several items at once; its time is counted once.
            self.work[rank] = busy_s + now - self._busy_since.pop(rank), tokens + counted.get("tokens", 0)
            if any(other == rank for other, _ in self._begun):
                self._busy_since[rank] = now
            self.longest_s = max(self.longest_s, now - begun)
            self.n_done += 1
            self.n_units += self.units.of_item[index] if self.units.of_item else 1
            self.counts.update(counted)
        self._advance()

    def silences(self, least_s: float = SILENT_S) -> list[Silence]:
        """Return the ranks that are silent: those busy for SILENT_FACTOR times the longest item, and for `least_s`.

        A rank that works on several items is reported once, with the item that it has had for the longest time.

        Before an item is finished nothing is known about the time that an item takes, and no rank is silent.
        """
        now = time.monotonic()
        with self._lock:
            newest_first = sorted(self._begun.items(), key=lambda item: -item[1])
            oldest = {rank: (index, now - begun) for (rank, index), begun in newest_first}
            limit_s = max(least_s, SILENT_FACTOR * self.longest_s)
            names = self._names
            return [
                Silence(rank, index if names is None else names[index], seconds, self.longest_s)
                for rank, (index, seconds) in sorted(oldest.items())
                if self.longest_s and seconds > limit_s
            ]
