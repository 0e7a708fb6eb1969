"""The optimizer of a round. Weights are float32 whatever it is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from .. import settings
from ..errors import RunError

EIGHT_BITS = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}  # as bitsandbytes calls them


def optimizer_of(parameters: Iterable[nn.Parameter], config: settings.Dpo) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019); its moments in float32, or in 8 bits (Dettmers et al. 2022).

    Raises:
        RunError: bitsandbytes is not installed, or does not load.
    """
    trained, how = list(parameters), {"lr": config.lr, "weight_decay": config.weight_decay}
    groups = [{"params": trained}]  # a rank that trains nothing has none, which is refused as a list
    if config.optimizer == "adamw":
        # Fused, one pass over each weight on a CPU. Else one after the other: for all at once, its default on GPUs, it
        # makes another copy of all of them.
        fused = all(p.device.type == "cpu" for p in trained)
        return torch.optim.AdamW(groups, foreach=False, fused=fused, **how)
    try:
        import bitsandbytes
    except (ImportError, RuntimeError, OSError) as error:
        raise RunError(
            f"dpo.optimizer={config.optimizer} needs bitsandbytes ({error}): pip install 'hpc_saidpo[8bit]', or "
            "dpo.optimizer=adamw"
        ) from error
    return getattr(bitsandbytes.optim, EIGHT_BITS[config.optimizer])(groups, **how)
