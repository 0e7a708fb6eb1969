"""LoRA of one round (Hu et al. 2021): low-rank adapters are trained, then merged into the policy's weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .. import settings
from ..errors import RunError, input_errors
from ..parallel import shards
from ..records import seed_of

if TYPE_CHECKING:
    from peft import LoraConfig, LoraModel

REMEDY = "name other layers in dpo.lora.targets, or train all weights with dpo.lora.rank=null"


class Adapters:
    """The adapters of a model; of no rank, there are none.

    Args:
        adapted: peft's model around it, and its plan.
        originals: the weights that are trained without adapters.
    """

    def __init__(self, adapted: LoraModel | None = None, plan: LoraConfig | None = None, originals: Sequence = ()):
        self._adapted, self._plan, self._originals = adapted, plan, originals

    def __bool__(self) -> bool:
        return self._adapted is not None

    def save(self, folder: Path, base: str, is_root: bool) -> None:
        """Write the adapters as peft does: `PeftModel.from_pretrained(model, folder)` reads them. Collective.

        Args:
            base: path of the model that they change.
        """
        assert self._adapted is not None and self._plan is not None
        weights = {}
        for name, parameter in self._adapted.model.named_parameters():
            if parameter.requires_grad:
                tensor = shards.gather(parameter.detach())
                if is_root:
                    weights[f"base_model.model.{name.replace('.default.', '.')}"] = tensor.cpu().contiguous()
        if is_root:
            self._plan.base_model_name_or_path = base
            self._plan.save_pretrained(str(folder))
            save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def merge(self) -> None:
        """Add (alpha / rank) · B A to every W, and restore the model's layers."""
        if self._adapted is not None:
            self._adapted.merge_and_unload()
        for parameter in self._originals:
            parameter.requires_grad_(True)


def inject(model: PreTrainedModel, config: settings.Lora, seed: int, iteration: int) -> Adapters:
    """Add adapters to the model's linear layers, W x + (alpha / rank) · B A x, and train them instead of its weights.

    B is 0 at first, so the model's output does not change, bit for bit. peft replaces the layers in place; the model
    keeps its class. Without `dpo.lora.rank` nothing changes.

    Raises:
        RunError: peft is not installed, or cannot adapt these layers; `dpo.lora.targets` names no linear layer, or a
            head tied to the embeddings.
    """
    if config.rank is None:
        return Adapters()
    targets = _targets(model, config)
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise RunError(
            f"dpo.lora.rank={config.rank} needs peft ({error}): pip install 'hpc_saidpo[lora]', or dpo.lora.rank=null"
        ) from error
    originals = [p for p in model.parameters() if p.requires_grad]
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    alpha = cast(int, config.alpha)  # peft declares an int, and computes with any number
    plan = LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=targets, fan_in_fan_out=transposed)
    problem = f"dpo.lora: peft cannot adapt the {model.config.model_type} model"
    with torch.random.fork_rng(), input_errors(problem, REMEDY):
        torch.manual_seed(seed_of(seed, iteration, "lora"))
        adapted = LoraModel(model, plan, "default")
    return Adapters(adapted, plan, originals)


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The linear layers that get adapters by default: all but the LM head."""
    head = model.get_output_embeddings()
    linear = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D))}
    return {name: m for name, m in linear.items() if m is not head}


def _targets(model: PreTrainedModel, config: settings.Lora) -> list[str]:
    """Full names of the layers that get adapters."""
    linear = linear_layers(model)
    if config.targets == "all-linear":
        return sorted(linear)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is not embeddings.weight:  # a tied head's adapter would change both
        linear |= {name: m for name, m in model.named_modules() if m is head}
    matches = {t: [name for name in linear if f".{name}".endswith(f".{t}")] for t in config.targets}
    unknown = [t for t, names in matches.items() if not names]
    if unknown:
        available = sorted({name.rpartition(".")[2] for name in linear})
        raise RunError(
            f"dpo.lora.targets: no linear layer of the model is called {', '.join(unknown)}: name some of "
            f"{', '.join(available)}, or all-linear"
        )
    return sorted({name for names in matches.values() for name in names})
