"""Choice of a policy's attention implementation and precision."""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import RunError
from ..progress import say_once
from ..settings.policy import Policy
from . import flash

# Names under which configurations limit the tokens that a layer sees.
WINDOWS = ("sliding_window", "window_size", "attention_window", "attention_chunk_size")


def attends_to_all(config: PreTrainedConfig) -> bool:
    """Check that every layer of a model sees the whole row, as far as its configuration says."""
    config = config.get_text_config()
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    uses_window = getattr(config, "use_sliding_window", True)
    has_window = any(getattr(config, name, None) for name in WINDOWS)
    return set(layers) == {"full_attention"} and not (has_window and uses_window)


def selected_tokens(config: PreTrainedConfig) -> float:
    """The number of tokens that a layer selects to attend to, by the scores of an index; infinite without an index.

    A shorter row is read whole. In a longer one many scores are equal, for example 0, and which of the tokens are
    selected then depends on rounding and on the other rows.
    """
    config = config.get_text_config()
    limits = [getattr(config, name, None) for name in ("index_topk", "indexer_budget", "keep_window_size")]
    return min(filter(None, limits), default=math.inf)


def precision_of(config: Policy, device: torch.device) -> torch.dtype:
    """The precision that a policy computes in; auto is bfloat16 on GPUs that support it, else float32."""
    name = config.precision
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return getattr(torch, name)


def save_precision_of(config: Policy, stored: str | torch.dtype | None) -> torch.dtype:
    """The precision of saved weights; auto is bfloat16 for a policy that is stored in bfloat16, else float32.

    Args:
        stored: the precision in the policy's configuration; None if it names none.
    """
    if config.save_precision != "auto":
        return getattr(torch, config.save_precision)
    return torch.bfloat16 if stored in (torch.bfloat16, "bfloat16") else torch.float32


def attention_of(config: Policy, device: torch.device, model: type[PreTrainedModel] | None = None) -> str:
    """The attention implementation, by transformers' name.

    auto is the fastest one that the class of the model has and that can run here: flash attention, sdpa, eager. On a
    GPU the reason against flash attention is logged once.

    Args:
        model: class of the model; None: a class that has every attention.

    Raises:
        RunError: the requested attention cannot run here, or the class of the model does not have it.
    """
    if config.attention == "eager":
        return "eager"
    wanted = [*flash.MODULE_OF, "sdpa"] if config.attention == "auto" else [config.attention]
    obstacles = {}
    for name in wanted:
        obstacles[name] = _obstacle(name, config, device, model)
        if not obstacles[name]:
            break
    else:
        name = "eager"
    if config.attention != "auto" and name != config.attention:
        raise RunError(f"policy.attention={config.attention}: {obstacles[config.attention]}: use policy.attention=auto")
    if device.type == "cuda" and name not in flash.MODULE_OF:
        reasons = "; ".join(f"no {other}: {obstacle}" for other, obstacle in obstacles.items() if obstacle)
        say_once(f"attention: {name} ({reasons})")
    return name


def _obstacle(name: str, config: Policy, device: torch.device, model: type[PreTrainedModel] | None) -> str:
    """The reason why a model cannot have this attention here; "" when it can."""
    if name == "sdpa":
        return "" if model is None or model._supports_sdpa else f"transformers has no sdpa for {model.__name__}"
    obstacle = flash.obstacle(name, device, precision_of(config, device))
    if obstacle or model is None:
        return obstacle
    # transformers would download another kernel from the Hub for a class that names the ones it works with.
    compatible = getattr(model, "_compatible_flash_implementations", None) or [name]
    works = model._supports_flash_attn and name in compatible
    return "" if works else f"transformers has no {name} for {model.__name__}"
