"""LoRA of one round (Hu et al. 2021): low-rank adapters are trained, and become part of the policy's weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from .. import settings
from ..errors import RunError
from ..records import seed_of


def inject(model: nn.Module, config: settings.Lora, seed: int, iteration: int) -> Callable[[], None]:
    """Give the model's linear layers adapters, W x + (alpha / rank) · B A x, and train these instead of its weights.

    B is 0 at first: what the model computes does not change, bit for bit. Layers are replaced in place, by peft; the
    model keeps its class. Without `dpo.lora.rank` nothing is done.

    Returns:
        What ends it: adds (alpha / rank) · B A to every W, and leaves the model with the layers that it had.

    Raises:
        RunError: peft is not installed; `dpo.lora.targets` names no linear layer, or the embeddings' own.
    """
    if config.rank is None:
        return lambda: None
    targets = _targets(model, config)
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise RunError(
            f"dpo.lora.rank={config.rank} needs peft ({error}): pip install 'hpc_saidpo[lora]', or dpo.lora.rank=null"
        ) from error
    own = [p for p in model.parameters() if p.requires_grad]
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    told = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets, fan_in_fan_out=transposed)
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, iteration, "lora"))
        adapted = LoraModel(model, told, "default")

    def merge():
        adapted.merge_and_unload()
        for parameter in own:
            parameter.requires_grad_(True)

    return merge


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Those that adapters may stand beside by default: all but the LM head."""
    head = model.get_output_embeddings()
    found = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D))}
    return {name: m for name, m in found.items() if m is not head}


def _targets(model, config) -> list[str]:
    """Full names of the layers that get adapters."""
    linear = linear_layers(model)
    if config.targets == "all-linear":
        return sorted(linear)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is not embeddings.weight:  # a tied head's adapter would change both
        linear |= {name: m for name, m in model.named_modules() if m is head}
    found = {t: [name for name in linear if f".{name}".endswith(f".{t}")] for t in config.targets}
    unknown = [t for t, names in found.items() if not names]
    if unknown:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise RunError(
            f"dpo.lora.targets: no linear layer of the model is called {', '.join(unknown)}: name some of "
            f"{', '.join(known)}, or all-linear"
        )
    return sorted({name for names in found.values() for name in names})
