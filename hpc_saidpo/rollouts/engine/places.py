"""Which row, prompt and start has which place in the stored keys and values. The host knows it without asking a device.

A row is a response that is decoded; rows of one prompt share its keys and values (a slot), and prompts share those of
their common start. All is counted on the host, in numpy; what a step needs on the device is sent there when it changes,
without waiting for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .groups import Groups

LEAST = 16  # the smallest size, where sizes are rounded up
Round = Callable[[int, int], int]  # a size and its maximum -> the size to compute with, not smaller


@dataclass(frozen=True)
class Capacity:
    """Maximum numbers of rows, of prompts (slots), of starts, and of the tokens of each: new, rest, start."""

    n_rows: int
    new_tokens: int
    n_slots: int
    rest_tokens: int
    n_starts: int
    start_tokens: int


@dataclass(frozen=True)
class Step:
    """The sizes of a decoding step: the shapes of all its tensors depend on nothing else.

    Attributes:
        n_rows: rows, those that are empty included.
        n_generated: tokens of the longest response, the one of this step included.
        n_slots, slot_rows, rest_tokens: prompts, places for the rows of each, tokens of the longest one.
        first_start, n_starts, start_rows, start_tokens: the same of starts; n_starts 1: all rows have this one.
    """

    n_rows: int
    n_generated: int
    n_slots: int
    slot_rows: int
    rest_tokens: int
    first_start: int
    n_starts: int
    start_rows: int
    start_tokens: int

    @property
    def furthest(self) -> int:
        """The largest position that a row can have."""
        return self.start_tokens + self.rest_tokens + self.n_generated - 1


class Places:
    """The places of rows, prompts and starts.

    Attributes:
        slot_R: slot of each row's prompt; -1 for an empty row.
        generated_R: tokens of each row's response whose keys and values are stored.
        rest_P, start_P, left_P: of each slot the tokens behind the start, its start, and its active rows.
        length_F, used_F: length of each start, and the number of slots that have it.
        n: rows up to the last one that is not empty.
    """

    def __init__(self, capacity: Capacity, device: torch.device):
        self.capacity, self.device = capacity, device
        self.slot_R = np.full(capacity.n_rows, -1)
        self.generated_R = np.zeros(capacity.n_rows, dtype=np.int64)
        self.rest_P, self.start_P, self.left_P = np.zeros((3, capacity.n_slots), dtype=np.int64)
        self.length_F, self.used_F = np.zeros((2, capacity.n_starts), dtype=np.int64)
        self.n = 0
        # rest, before (start and rest), generated, place in the slot, place in the start
        self.facts_5R = torch.zeros(5, capacity.n_rows, dtype=torch.long, device=device)
        self.lengths_PF = torch.zeros(capacity.n_slots + capacity.n_starts, dtype=torch.int32, device=device)
        self._sent: Step | None = None  # sizes for which facts are on the device; None: they have changed

    @property
    def n_free(self) -> int:
        """Empty rows."""
        return self.capacity.n_rows - int((self.slot_R >= 0).sum())

    def free_slots(self) -> list[int]:
        """Slots without a row, in ascending order."""
        return np.flatnonzero(self.left_P == 0).tolist()

    def add(self, slot: int, start: int, rest: int, n: int) -> np.ndarray:
        """Place a prompt in a free slot, and n rows of it in empty rows. Returns the rows."""
        rows = np.flatnonzero(self.slot_R < 0)[:n]
        self.slot_R[rows], self.generated_R[rows] = slot, 0
        self.rest_P[slot], self.start_P[slot], self.left_P[slot] = rest, start, n
        self.used_F[start] += 1
        self._changed()
        return rows

    def remove(self, rows: np.ndarray) -> None:
        """Empty some rows, and the slots that then have none."""
        np.subtract.at(self.left_P, self.slot_R[rows], 1)
        for slot in {slot for slot in self.slot_R[rows].tolist() if self.left_P[slot] == 0}:
            self.used_F[self.start_P[slot]] -= 1
            self.rest_P[slot] = 0
        self.slot_R[rows] = -1
        self._changed()

    def compact(self) -> tuple[np.ndarray, np.ndarray]:
        """Move the last rows into empty ones. Returns the rows that moved: from, to."""
        used = np.flatnonzero(self.slot_R >= 0)
        source = used[used >= len(used)]
        target = np.flatnonzero(self.slot_R[: len(used)] < 0)
        for facts_R in (self.slot_R, self.generated_R):
            facts_R[target] = facts_R[source]
        self.slot_R[source] = -1
        self._changed()
        return source, target

    def _changed(self) -> None:
        used = np.flatnonzero(self.slot_R >= 0)
        self.n = int(used[-1]) + 1 if len(used) else 0
        self._sent = None

    def step(self, round_up: Round) -> Step:
        """The sizes of the next step, and its facts on the device."""
        size, slot_R = self.capacity, self.slot_R[: self.n]
        slots, starts = slot_R[slot_R >= 0], self.start_P[slot_R[slot_R >= 0]]
        is_shared, last = starts.min() == starts.max(), int(starts.max())
        n_rows = round_up(self.n, size.n_rows)
        rows_F = np.bincount(starts)
        step = Step(
            n_rows,
            round_up(int(self.generated_R[: self.n][slot_R >= 0].max()) + 1, size.new_tokens),
            round_up(int(slots.max()) + 1, size.n_slots),
            round_up(int(self.left_P.max()), size.n_rows),
            round_up(int(self.rest_P.max()), size.rest_tokens),
            last if is_shared else 0,
            1 if is_shared else last + 1,
            n_rows if is_shared else round_up(int(rows_F.max()), size.n_rows),
            int(self.length_F[np.unique(starts)].max()) if size.start_tokens else 0,
        )
        # A longer response changes sizes, but no facts.
        key = Step(**{**vars(step), "n_generated": 0})
        if key != self._sent:
            self._send(step)
            self._sent = key
        return step

    def _send(self, step: Step) -> None:
        rows = np.flatnonzero(self.slot_R >= 0)
        facts_5R = np.zeros((5, self.capacity.n_rows), dtype=np.int64)
        facts_5R[3:] = [[step.n_slots * step.slot_rows], [step.n_starts * step.start_rows]]
        slot = self.slot_R[rows]
        start, rest = self.start_P[slot], self.rest_P[slot]
        facts_5R[:3, rows] = rest, self.length_F[start] + rest, self.generated_R[rows]
        facts_5R[3, rows] = slot * step.slot_rows + _rank_in_group(slot)
        facts_5R[4, rows] = start * step.start_rows + _rank_in_group(start)
        self.facts_5R.copy_(self.sent(facts_5R), non_blocking=True)
        lengths = np.concatenate([self.rest_P, self.length_F]).astype(np.int32)
        self.lengths_PF.copy_(self.sent(lengths), non_blocking=True)

    def sent(self, array: np.ndarray) -> torch.Tensor:
        """An array as a tensor on the device. The host does not wait for the device: the memory is pinned for CUDA."""
        tensor = torch.from_numpy(array)
        tensor = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return tensor.to(self.device, non_blocking=True)

    def groups(self, step: Step) -> tuple[Groups, Groups]:
        """The rows of a step by prompt, and by start."""
        places = self.facts_5R[3:, : step.n_rows]
        by_start = None if step.n_starts == 1 else places[1]
        return (
            Groups(0, step.n_slots, step.slot_rows, places[0]),
            Groups(step.first_start, step.n_starts, step.start_rows, by_start),
        )

    def advance(self) -> None:
        """Note that the keys and values of one more token of each row are stored."""
        self.generated_R[: self.n] += 1
        self.facts_5R[2] += 1


def exactly(size: int, most: int) -> int:
    """Sizes as they are."""
    return size


def in_powers(size: int, most: int) -> int:
    """Sizes rounded up to a power of two, at least LEAST: few different ones."""
    return min(most, 1 << (max(size, LEAST) - 1).bit_length())


def _rank_in_group(group_R: np.ndarray) -> np.ndarray:
    """The number of earlier rows in each row's group."""
    order = np.argsort(group_R, kind="stable")
    ordered = group_R[order]
    rank_R = np.empty_like(order)
    rank_R[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return rank_R
