"""Choice of a policy's attention implementation and precision."""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig

from .. import settings
from ..errors import RunError
from ..progress import say_once
from . import flash


def attends_to_all(config: PreTrainedConfig) -> bool:
    """Check that every layer of a model attends to the whole row, rather than to a sliding window of it."""
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    sliding = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return set(layers) == {"full_attention"} and not sliding


def precision_of(config: settings.Policy, device: torch.device) -> torch.dtype:
    """The precision that a policy computes in; auto is bfloat16 on GPUs that support it, else float32."""
    name = config.precision
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return getattr(torch, name)


def attention_of(config: settings.Policy, device: torch.device) -> str:
    """The attention implementation, by transformers' name; auto falls back to sdpa and logs the reason once.

    Raises:
        RunError: flash attention is requested, but cannot run here.
    """
    if config.attention not in ("auto", *flash.MODULE_OF):
        return config.attention
    obstacles = {}
    for name in flash.MODULE_OF if config.attention == "auto" else [config.attention]:
        obstacles[name] = flash.obstacle(name, device, precision_of(config, device))
        if not obstacles[name]:
            return name
    if config.attention != "auto":
        raise RunError(f"policy.attention={config.attention}: {obstacles[config.attention]}: use policy.attention=auto")
    if device.type == "cuda":
        reasons = "; ".join(f"no {name}: {obstacle}" for name, obstacle in obstacles.items())
        say_once(f"attention: sdpa ({reasons})")
    return "sdpa"
