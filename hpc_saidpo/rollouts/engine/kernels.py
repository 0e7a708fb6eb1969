"""Attention of rows by flash-attn's kernels, in parts: the prefix, the prompts, the responses.

A kernel is flash-attn's `flash_attn_with_kvcache`, of version 2 or 3: the arguments used here have the same names and
shapes in both (flash_attn/flash_attn_interface.py and hopper/flash_attn_interface.py, read at 2.8.4). Query heads that
share a key-value head are passed as further queries of it: keys and values are read once for all of them, and once for
all K rows of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...policy import flash

LARGEST_HEAD = 256  # of the kernels; a head size that is no multiple of 8 makes them copy all keys
Kernel = Callable[..., Sequence[torch.Tensor]]
Part = tuple[torch.Tensor, torch.Tensor]  # attention [B, N, H, D], log of the sum of exp(score) [B, N, H]


def find_kernel(attention: str) -> Kernel | None:
    """The kernel of a model's attention implementation; None when it has none."""
    return flash.kernel(attention) if attention in flash.MODULE_OF else None


def supports(size: int) -> bool:
    """Check whether the kernels support heads of this size."""
    return size % 8 == 0 and size <= LARGEST_HEAD


def attend_part(
    kernel: Kernel,
    query: torch.Tensor,
    stored: Sequence[torch.Tensor],
    length_B: torch.Tensor,
    scaling: float,
    softcap: float | None,
) -> Part:
    """Attention over one part of the tokens that a query sees.

    Args:
        query: [B, N, H, D], N queries to each of B sequences.
        stored: keys and values, [B, H, S, D] each.
        length_B: int32, the number of tokens in each sequence, at most S.
        softcap: None for none.

    Returns:
        (attention [B, N, H, D] as if this part was the whole, float32; log of the sum of exp(score) [B, N, H]).
    """
    key, value = (x.transpose(1, 2) for x in stored)
    attended, lse, *_ = kernel(
        query, key, value, cache_seqlens=length_B, softmax_scale=scaling, causal=False, softcap=softcap or 0.0,
        return_softmax_lse=True,
    )  # fmt: skip
    return attended.float(), lse.transpose(1, 2)


def merge_parts(parts: Sequence[Part]) -> torch.Tensor:
    """Attention over all parts: each is weighted by its share of the sum of exp(score)."""
    attended, lse = (torch.stack(x) for x in zip(*parts, strict=True))
    return (attended * lse.softmax(0)[..., None]).sum(0)


def by_torch(
    query: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    *,
    cache_seqlens: torch.Tensor,
    softmax_scale: float,
    softcap: float,
    **options: bool,
) -> Part:
    """The same as a kernel, for any device and precision; of its options only those that are used here."""
    assert options == {"causal": False, "return_softmax_lse": True}
    score = torch.einsum("bnhd,bshd->bhns", query, k_cache).float() * softmax_scale
    if softcap:
        score = torch.tanh(score / softcap) * softcap
    exists = torch.arange(k_cache.shape[1], device=query.device) < cache_seqlens[:, None]
    score = score.masked_fill(~exists[:, None, None], float("-inf"))
    attended = torch.einsum("bhns,bshd->bnhd", score.softmax(-1).to(v_cache.dtype), v_cache)
    return attended, score.logsumexp(-1)
