"""Attention scores: the options of a layer, and products that `kv_cache` needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Scoring:
    """The options of a layer's attention scores.

    Attributes:
        scaling: factor of query · key.
        window: tokens that a token sees, itself included; None for all.
        softcap: scores become softcap · tanh(score / softcap); None leaves them.
    """

    scaling: float
    window: int | None = None
    softcap: float | None = None


def times_prefix(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left [R, H, G, X] times right [H, X, Y], the same for all rows: [R, H, G, Y]."""
    n, heads, group, x = left.shape
    product = left.transpose(0, 1).reshape(heads, n * group, x) @ right
    return product.view(heads, n, group, -1).transpose(0, 1)


def attend_softcapped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float, softcap: float
) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    score = torch.tanh(query @ key.transpose(-1, -2) * scaling / softcap) * softcap
    weight = torch.softmax(score.float().masked_fill(~mask, float("-inf")), dim=-1).to(value.dtype)
    return (weight @ value).transpose(1, 2)
