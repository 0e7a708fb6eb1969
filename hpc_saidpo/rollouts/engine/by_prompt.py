"""Rows by prompt, padded to the prompt with the most: one product, or one kernel, serves all prompts."""

from __future__ import annotations

import torch


class ByPrompt:
    """Where each row stands among its prompt's.

    Attributes:
        n_slots, width: prompts, and places for rows of each.
    """

    def __init__(self, slot_R: torch.Tensor, n_slots: int):
        order = torch.argsort(slot_R, stable=True)
        slot = slot_R[order]
        count_P = torch.bincount(slot, minlength=n_slots)
        first_P = count_P.cumsum(0) - count_P
        self.n_slots, self.width = n_slots, int(count_P.max())
        self._place_R = torch.empty_like(order)
        self._place_R[order] = slot * self.width + torch.arange(len(slot), device=slot.device) - first_P[slot]

    def spread(self, left: torch.Tensor) -> torch.Tensor:
        """left [R, ...] as [P, width, ...], zeros where there is no row."""
        spread = left.new_zeros(self.n_slots * self.width, *left.shape[1:])
        spread[self._place_R] = left
        return spread.view(self.n_slots, self.width, *left.shape[1:])

    def back(self, spread: torch.Tensor) -> torch.Tensor:
        """[P, width, ...] as [R, ...]."""
        return spread.reshape(self.n_slots * self.width, *spread.shape[2:])[self._place_R]

    def times(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """left [R, H, G, X] times its prompt's right [P, H, X, Y]: [R, H, G, Y]."""
        _, heads, group, x = left.shape
        spread = self.spread(left).transpose(1, 2)
        found = spread.reshape(self.n_slots, heads, self.width * group, x) @ right
        return self.back(found.view(self.n_slots, heads, self.width, group, -1).transpose(1, 2))
