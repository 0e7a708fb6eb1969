"""Rows in groups that see the same keys and values: one matrix product, or one kernel, serves all groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Groups:
    """The place of each row in its group. Groups are padded to the same number of rows.

    Attributes:
        first, n: the groups are first .. first + n - 1 of the stored keys and values.
        width: places for rows in each.
        place_R: group · width + place in the group; n · width for a row that is empty. None: all rows are in one group,
            in their order.
    """

    first: int
    n: int
    width: int
    place_R: torch.Tensor | None

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """rows [R, ...] as [n, width, ...], zeros in places without a row."""
        if self.place_R is None:
            return rows[None]
        spread = rows.new_zeros(self.n * self.width + 1, *rows.shape[1:])
        spread[self.place_R] = rows
        return spread[:-1].view(self.n, self.width, *rows.shape[1:])

    def back(self, spread: torch.Tensor) -> torch.Tensor:
        """[n, width, ...] as [R, ...]; any numbers for an empty row."""
        if self.place_R is None:
            return spread[0]
        return spread.reshape(self.n * self.width, *spread.shape[2:])[self.place_R.clamp(max=self.n * self.width - 1)]

    def stored(self, tensor: torch.Tensor, n_tokens: int) -> torch.Tensor:
        """The keys or values [n, H, n_tokens, D] of the groups, of all stored ones [N, H, T, D]."""
        return tensor[self.first : self.first + self.n, :, :n_tokens]

    def times(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """left [R, H, G, X] times the right [n, H, X, Y] of each row's group: [R, H, G, Y]."""
        _, heads, group, x = left.shape
        spread = self.spread(left).transpose(1, 2)
        product = spread.reshape(self.n, heads, -1, x) @ right
        return self.back(product.view(self.n, heads, -1, group, right.shape[-1]).transpose(1, 2))
