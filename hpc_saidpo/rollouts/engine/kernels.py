"""Attention of rows by flash-attn's kernels, part by part: the prefix, their prompts, their own tokens.

A kernel is flash-attn's `flash_attn_with_kvcache`, of version 2 or 3: the arguments used here have the same names and
shapes in both (flash_attn/flash_attn_interface.py and hopper/flash_attn_interface.py, read at 2.8.4). Query heads that
share a key-value head are handed over as further queries of it: keys and values are read once for all of them, and once
for all K rows of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...policy import flash

LARGEST_HEAD = 256  # of the kernels; and its size is a multiple of 8, or they copy all keys to pad them


def of(attention: str) -> Callable | None:
    """The kernel that belongs to a model's attention implementation; None when it has none."""
    return flash.kernel(attention) if attention in flash.MODULE_OF else None


def fits(size: int) -> bool:
    """Whether the kernels take heads of this size."""
    return size % 8 == 0 and size <= LARGEST_HEAD


def partial(
    kernel: Callable, query: torch.Tensor, kept: Sequence[torch.Tensor], length_B: torch.Tensor, scaling: float, softcap
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over one part of what a query sees.

    Args:
        query: [B, N, H, D], N queries to each of B sequences.
        kept: keys and values, [B, H, S, D] each.
        length_B: int32, how many of a sequence's S are there.
        softcap: None for none.

    Returns:
        (attention as if there were nothing else [B, N, H, D], float32; log of the sum of exp(score) [B, N, H]).
    """
    key, value = (x.transpose(1, 2) for x in kept)
    found, lse, *_ = kernel(
        query, key, value, cache_seqlens=length_B, softmax_scale=scaling, causal=False, softcap=softcap or 0.0,
        return_softmax_lse=True,
    )  # fmt: skip
    return found.float(), lse.transpose(1, 2)


def merge(parts: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Attention over all parts: each weighs by its share of the sum of exp(score). A part's shapes: see `partial`."""
    found, lse = (torch.stack(x) for x in zip(*parts, strict=True))
    return (found * lse.softmax(0)[..., None]).sum(0)


def by_torch(query, k_cache, v_cache, *, cache_seqlens, softmax_scale, causal, softcap, return_softmax_lse):
    """What a kernel computes, for any device and precision; of its options only those that are used here."""
    assert not causal and return_softmax_lse
    score = torch.einsum("bnhd,bshd->bhns", query, k_cache).float() * softmax_scale
    if softcap:
        score = torch.tanh(score / softcap) * softcap
    there = torch.arange(k_cache.shape[1], device=query.device) < cache_seqlens[:, None]
    score = score.masked_fill(~there[:, None, None], float("-inf"))
    found = torch.einsum("bhns,bshd->bnhd", score.softmax(-1).to(v_cache.dtype), v_cache)
    return found, score.logsumexp(-1)
