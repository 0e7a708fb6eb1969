"""Experts of a mixture compute in the precision of autocast. In transformers they compute in float32 all the same."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.moe import ExpertsInterface, grouped_mm_experts_forward

from .plain import configs_of

REPLACED, NAME = "grouped_mm", "hpc_saidpo_autocast"


def in_autocast(model: PreTrainedModel) -> None:
    """Let the experts of a model compute in the precision of autocast, wherever that is enabled."""
    for config in configs_of(model):
        if getattr(config, "_experts_implementation", None) == REPLACED:
            config._experts_implementation = NAME


def holds_experts(module: nn.Module) -> bool:
    """Whether a module's own weights are those of several experts, one matrix of each."""
    return any(weight is not None and weight.ndim == 3 for weight in module._parameters.values())


class _Cast:
    """A module whose weights appear in another precision; their gradients reach the module's own ones."""

    def __init__(self, module: nn.Module, precision: torch.dtype):
        self._module, self._precision = module, precision

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        is_weight = isinstance(value, nn.Parameter) and value.is_floating_point()
        return value.to(self._precision) if is_weight else value


def _forward(module: nn.Module, hidden_states: torch.Tensor, *routed: torch.Tensor) -> torch.Tensor:
    kind = hidden_states.device.type
    if torch.is_autocast_enabled(kind):
        module = cast(nn.Module, _Cast(module, torch.get_autocast_dtype(kind)))
    return grouped_mm_experts_forward(module, hidden_states, *routed)


ExpertsInterface.register(NAME, _forward)
