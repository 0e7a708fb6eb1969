"""The attention of the engine `shared`: attention over keys and values that rows share (`kv_cache`).

It is registered with transformers under `NAME`, so that it serves any model that calls the attention interface, without
a copy of the model's code. The model runs without its usual cache: `KVCache` stores the keys and values.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformers import AttentionInterface

from .kv_cache import CURRENT, Scoring

NAME = "hpc_saidpo_shared"


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
    if options.get("s_aux") is not None:
        raise UnsupportedAttention("attention sinks")
    if attention_mask is not None:
        raise UnsupportedAttention("a custom mask")
    scoring = Scoring(query.shape[-1] ** -0.5 if scaling is None else scaling, options.get("sliding_window"), softcap)
    return CURRENT.get().attend(cast(int, module.layer_idx), query, key, value, scoring), None


AttentionInterface.register(NAME, _attend)
