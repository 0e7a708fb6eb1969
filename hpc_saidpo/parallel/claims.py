"""The work items of a stage that one rank has: it may work on several at once, and end them in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Claims(Protocol):
    """The items of 0 .. n-1 that this rank works on. Each item goes to exactly one rank."""

    def next(self, wait: bool = True) -> int | None:
        """Return the next item for this rank.

        Args:
            wait: wait until root has answered. False: return None if the answer is not there yet, or if root keeps the
                remaining items for ranks that have fewer.

        Returns:
            None, with wait: no item is left for this rank, or a stop was requested.
        """
        ...

    def end(self, index: int, counts: Mapping[str, float] | None = None) -> None:
        """Note that this rank has finished an item, and what it has counted in it."""
        ...

    def close(self) -> None:
        """End the work on items. Collective: call it when `next` has returned None and every item is finished.

        Raises:
            Stopped: a stop was requested while items were left. The ranks have finished the items they had begun.
        """
        ...


class Noting(Protocol):
    """Where beginnings and ends of items are noted: `task.Task`."""

    def begin(self, rank: int, index: int) -> None: ...
    def end(self, rank: int, index: int, counts: Mapping[str, float] | None = None) -> None: ...


class Timing(Protocol):
    """What measures the time with items: `idle.Work`."""

    def begin(self) -> None: ...
    def end(self) -> None: ...


class Ranks(Protocol):
    """The ranks: `world.World`."""

    rank: int

    @property
    def stop_request(self) -> object: ...
    def gather(self, value: bool) -> list[bool]: ...
    def stop_if_requested(self) -> None: ...


class OwnClaims:
    """The items of one process, or of a rank whose items are fixed. Implements `Claims`.

    Args:
        items: this rank's items in their order.
    """

    def __init__(self, items: Sequence[int], task: Noting, work: Timing, ranks: Ranks):
        self._items, self._task, self._work, self._ranks = list(items)[::-1], task, work, ranks

    def next(self, wait: bool = True) -> int | None:
        if not self._items or self._ranks.stop_request:
            return None
        index = self._items.pop()
        self._work.begin()
        self._task.begin(self._ranks.rank, index)
        return index

    def end(self, index: int, counts: Mapping[str, float] | None = None) -> None:
        self._work.end()
        self._task.end(self._ranks.rank, index, counts)

    def close(self) -> None:
        if any(self._ranks.gather(bool(self._items))):
            self._ranks.stop_if_requested()
