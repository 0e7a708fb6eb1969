"""Which attention implementation and which precision a policy computes with."""

from __future__ import annotations

import torch

from .. import settings
from ..errors import RunError
from ..progress import say_once
from . import flash


def attends_to_all(config) -> bool:
    """Whether every layer of the model attends to the whole row, rather than to a sliding window of it."""
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    sliding = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return set(layers) == {"full_attention"} and not sliding


def precision_of(config: settings.Policy, device: torch.device) -> torch.dtype:
    """The precision of the computation."""
    name = config.precision
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return getattr(torch, name)


def attention_of(config: settings.Policy, device: torch.device) -> str:
    """The attention implementation, by transformers' name; auto falls back to sdpa, and says why once.

    Raises:
        RunError: flash attention is asked for where it cannot run.
    """
    if config.attention not in ("auto", *flash.MODULE_OF):
        return config.attention
    why_not = {}
    for name in flash.MODULE_OF if config.attention == "auto" else [config.attention]:
        why_not[name] = flash.obstacle(name, device, precision_of(config, device))
        if not why_not[name]:
            return name
    if config.attention != "auto":
        raise RunError(f"policy.attention={config.attention}: {why_not[config.attention]}: use policy.attention=auto")
    if device.type == "cuda":
        say_once("attention: sdpa (" + "; ".join(f"no {name}: {why}" for name, why in why_not.items()) + ")")
    return "sdpa"
