"""Rows grouped by prompt, padded to the largest group: one matrix product, or one kernel, serves all prompts."""

from __future__ import annotations

import torch


class ByPrompt:
    """The place of each row in the group of its prompt.

    Args:
        slot_R: slot of each row's prompt.

    Attributes:
        n_slots, width: number of prompts, and number of places for rows of each.
    """

    def __init__(self, slot_R: torch.Tensor, n_slots: int):
        order = torch.argsort(slot_R, stable=True)
        slot = slot_R[order]
        count_P = torch.bincount(slot, minlength=n_slots)
        first_P = count_P.cumsum(0) - count_P
        self.n_slots, self.width = n_slots, int(count_P.max())
        self._place_R = torch.empty_like(order)
        self._place_R[order] = slot * self.width + torch.arange(len(slot), device=slot.device) - first_P[slot]

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """rows [R, ...] as [P, width, ...], zeros in places without a row."""
        spread = rows.new_zeros(self.n_slots * self.width, *rows.shape[1:])
        spread[self._place_R] = rows
        return spread.view(self.n_slots, self.width, *rows.shape[1:])

    def back(self, spread: torch.Tensor) -> torch.Tensor:
        """[P, width, ...] as [R, ...]."""
        return spread.reshape(self.n_slots * self.width, *spread.shape[2:])[self._place_R]

    def times(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """left [R, H, G, X] times the right [P, H, X, Y] of each row's prompt: [R, H, G, Y]."""
        _, heads, group, x = left.shape
        spread = self.spread(left).transpose(1, 2)
        product = spread.reshape(self.n_slots, heads, self.width * group, x) @ right
        return self.back(product.view(self.n_slots, heads, self.width, group, -1).transpose(1, 2))
