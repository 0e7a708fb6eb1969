"""The optimizer of a round. Weights are float32 with every optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

import torch
from torch import nn

from .. import settings
from ..errors import RunError

EIGHT_BITS = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}  # names in bitsandbytes


def optimizer_of(parameters: Iterable[nn.Parameter], config: settings.Dpo) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) with moments in float32, or in 8 bits (Dettmers et al. 2022).

    Raises:
        RunError: bitsandbytes is not installed, or does not load.
    """
    trained = list(parameters)
    groups = [{"params": trained}]  # as a group, because torch refuses an empty list: a rank may train nothing
    if config.optimizer == "adamw":
        # On a CPU fused: one pass over each weight. On a GPU one weight after the other: foreach, the default there,
        # makes another copy of all weights.
        fused = all(p.device.type == "cpu" for p in trained)
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, foreach=False, fused=fused)
    adam = getattr(import_bitsandbytes(config.optimizer).optim, EIGHT_BITS[config.optimizer])
    return adam(groups, lr=config.lr, weight_decay=config.weight_decay)


def import_bitsandbytes(optimizer: str) -> ModuleType:
    """Import the package of the optimizers in 8 bits.

    Args:
        optimizer: dpo.optimizer, for the message.

    Raises:
        RunError: it is not installed, or does not load.
    """
    try:
        import bitsandbytes
    except (ImportError, RuntimeError, OSError) as error:
        raise RunError(
            f"dpo.optimizer={optimizer} needs bitsandbytes ({error}): pip install 'hpc_saidpo[8bit]', or "
            "dpo.optimizer=adamw"
        ) from error
    return bitsandbytes
