"""The attention of the engine `shared`: attention over keys and values that rows share (`kv_cache`).

It is registered with transformers under `NAME`, so that it serves any model that calls the attention interface, without
a copy of the model's code. The model runs without its usual cache: `KVCache` stores the keys and values.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import AttentionInterface

from .kv_cache import CURRENT
from .scores import Scoring

NAME = "hpc_saidpo_shared"
PLACES = ("position_ids", "cache_position")  # inputs that repeat what `KVCache` has


class UnsupportedAttention(Exception):
    """The model's attention needs a feature that this module lacks; the message names it."""


@torch.compiler.disable  # the stored tensors and their rows differ from step to step
def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **options,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it."""
    if attention_mask is not None:
        raise UnsupportedAttention("its attention has a mask of its own")
    further = [name for name, x in options.items() if isinstance(x, torch.Tensor) and name not in PLACES]
    if further:
        raise UnsupportedAttention(f"its attention has a further input, {further[0]}")
    scoring = Scoring(query.shape[-1] ** -0.5 if scaling is None else scaling, options.get("sliding_window"), softcap)
    return CURRENT.get().attend(id(module), query, key, value, scoring), None


AttentionInterface.register(NAME, _attend)
