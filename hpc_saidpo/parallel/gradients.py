"""One model on every rank, with one gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import torch
from torch import nn


class Replicas:
    """One model on every rank, with gradients summed over the ranks.

    Attributes:
        module: what losses call: the model, wrapped in DistributedDataParallel when a process group is up.
        exact: sum micro-batch gradients in float64, so that the sum (rounded to the parameters' precision) does not
            depend on which rank computed what. Costs 8 bytes per parameter.
    """

    def __init__(self, model: nn.Module, world, exact: bool):
        self.model, self.exact, self.size = model, exact, world.size
        self.module = model
        if torch.distributed.is_initialized():
            ids = [world.device.index] if world.device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def gradient(self, losses: Iterable[Callable[[nn.Module], torch.Tensor]]) -> None:
        """Set every parameter's .grad to the gradient of the sum of all ranks' losses. Collective.

        Args:
            losses: one function per micro-batch of this rank, module -> scalar loss; at least one.
        """
        losses = list(losses)
        exact = {p: torch.zeros_like(p, dtype=torch.float64) for p in self._trained()} if self.exact else {}
        for i, loss in enumerate(losses):
            synchronise = i == len(losses) - 1 and not self.exact
            with contextlib.nullcontext() if synchronise or self.module is self.model else self.module.no_sync():
                # DDP averages over the ranks; the gradient wanted is that of the sum.
                (loss(self.module) * (1 if self.exact else self.size)).backward()
            for p, total in exact.items():
                total += p.grad.double()
                p.grad = None
        for p, total in exact.items():
            if self.module is not self.model:
                torch.distributed.all_reduce(total)
            p.grad = total.to(p.dtype)

    def _trained(self):
        return [p for p in self.model.parameters() if p.requires_grad]

    def close(self):
        self.module = self.model
