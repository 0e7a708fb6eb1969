"""Train one module on several ranks: replicated (DDP), sharded (FSDP2), or on root alone."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from . import shards
from .task import Task
from .world import World

Strategy = Literal["ddp", "fsdp", "single"]
T = TypeVar("T")


class Replicas:
    """The whole module on every rank, with gradients summed over the ranks (DistributedDataParallel).

    Args:
        module: a function of batches.
        exact: sum the gradients of the micro-batches in float64. The sum, rounded to the precision of the parameters,
            then does not depend on which rank computed which micro-batch. Costs 8 bytes per parameter.
        layers, precision: see `Shards`.
        unused: the loss does not depend on some of the parameters.

    Attributes:
        bare: the module.
        module: the module in its wrapper. Gradients are computed with this one.
    """

    needs_group = True

    def __init__(
        self,
        module: nn.Module,
        world: World,
        exact: bool,
        layers: Sequence[nn.Module] = (),
        precision: torch.dtype | None = None,
        unused: bool = False,
    ):
        self._world, self.bare, self.exact, self._unused = world, module, exact, unused
        self.module = self._wrap(layers, precision)

    @property
    def _size(self) -> int:
        """Number of ranks that train."""
        return self._world.size

    def _wrap(self, layers: Sequence[nn.Module], precision: torch.dtype | None) -> nn.Module:
        if not torch.distributed.is_initialized():
            return self.bare
        device = self._world.device
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(self.bare, device_ids=ids, find_unused_parameters=self._unused)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that this rank trains, by name; with FSDP, its shards."""
        return {name: p for name, p in self.bare.named_parameters() if p.requires_grad}

    def share(self, items: Sequence[T]) -> list[T | None]:
        """Return this rank's items for `gradient`. None fills up the list: all ranks have equally many entries."""
        share: list[T | None] = list(items[self._world.rank :: self._size])
        return share + [None] * (-(-len(items) // self._size) - len(share))

    def claim(self, n: int, task: Task) -> Iterator[int]:
        """Yield items 0 .. n-1 for forward passes without a gradient. Two ranks may receive the same. Collective."""
        return self._world.claim(n, task)

    def gradient(self, losses: Iterable[Callable[[nn.Module], torch.Tensor]]) -> None:
        """Set .grad of every parameter to the gradient of the sum of all ranks' losses. Collective.

        Args:
            losses: one function per micro-batch of this rank (`share`), module -> scalar loss.
        """
        losses, trained = list(losses), self.parameters().values()
        exact = {p: torch.zeros_like(p, dtype=torch.float64) for p in trained} if self.exact else {}
        for i, loss in enumerate(losses):
            synchronise = i == len(losses) - 1 and not self.exact
            with contextlib.nullcontext() if synchronise else self._without_synchronisation():
                # DDP averages over the ranks, but the result must be the gradient of the sum.
                (loss(self.module) * (1 if self.exact else self._size)).backward()
            for p, total in exact.items():
                if p.grad is not None:  # else the loss does not depend on it, like a part that reads images
                    total += p.grad.double()
                p.grad = None
        for p, total in exact.items():
            if self.module is not self.bare:
                torch.distributed.all_reduce(total)
            p.grad = total.to(p.dtype)

    def _without_synchronisation(self) -> contextlib.AbstractContextManager:
        if isinstance(self.module, nn.parallel.DistributedDataParallel):
            return self.module.no_sync()
        return contextlib.nullcontext()

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to a norm of at most `max_norm`. Return the norm before. Collective."""
        return float(shards.gather(nn.utils.clip_grad_norm_(self.parameters().values(), max_norm)))

    def close(self) -> None:
        """Remove the wrapper of the module."""
        self.module = self.bare


class RootOnly(Replicas):
    """Root trains without a process group. The other ranks share the forward passes without a gradient, and wait."""

    needs_group = False

    @property
    def _size(self) -> int:
        return 1

    def parameters(self) -> dict[str, nn.Parameter]:
        return super().parameters() if self._world.is_root else {}

    def share(self, items: Sequence[T]) -> list[T | None]:
        return super().share(items) if self._world.is_root else []

    def clip(self, max_norm: float) -> float:
        return self._world.bcast(super().clip(max_norm))


class Shards(Replicas):
    """A shard of every weight, gradient and optimizer moment on each rank (FSDP2; Zhao et al. 2023).

    A layer is gathered while it computes. Parameters outside the layers (embeddings, norm, head) are gathered while the
    module computes. Every forward and backward pass is collective, so all ranks need the same number of passes.
    Gradients are summed after each micro-batch: kept until the last one, they would be as large as the model. The order
    of this sum depends on the ranks, so there is no exact sum. The module stays sharded and cannot be used afterwards.

    Args:
        layers: the parts that are gathered one after the other.
        precision: data type of the computation, None: float32. Weights, sums of gradients and moments are float32.

    Raises:
        ValueError: `exact` is set.
    """

    def _wrap(self, layers: Sequence[nn.Module], precision: torch.dtype | None) -> nn.Module:
        if self.exact:
            raise ValueError("sharded gradients have no exact sum")
        mesh = init_device_mesh(self._world.device.type, (self._size,))
        lower = precision if precision != torch.float32 else None
        mixed = MixedPrecisionPolicy(param_dtype=lower, reduce_dtype=lower and torch.float32)
        for part in [*layers, self.bare]:
            fully_shard(part, mesh=mesh, mp_policy=mixed)
        self.bare.register_forward_hook(_reshard_without_gradient)
        return self.bare

    def claim(self, n: int, task: Task) -> Iterator[int]:
        return self._world.take_turns(n, task)

    def gradient(self, losses: Iterable[Callable[[nn.Module], torch.Tensor]]) -> None:
        for loss in losses:
            # FSDP averages over the ranks, but the result must be the gradient of the sum.
            (loss(self.module) * self._size).backward()


def _reshard_without_gradient(module: nn.Module, *_: object) -> None:
    """Shard the outermost parameters again after a forward pass without a gradient.

    FSDP2 keeps them gathered for a backward pass. Without one they would stay in place of the shards, and an optimizer
    that is created then would train them without any effect.
    """
    if not torch.is_grad_enabled():
        module.reshard()  # pyright: ignore[reportCallIssue] - `fully_shard` adds this method to the class


def replicas_class(strategy: Strategy, has_group: bool) -> type[Replicas]:
    """Return the class with which a world trains one module. Without a process group it trains the plain module."""
    return {"ddp": Replicas, "fsdp": Shards, "single": RootOnly}[strategy] if has_group else Replicas


@contextlib.contextmanager
def replicate(
    world: World,
    module: nn.Module,
    exact: bool,
    strategy: Strategy = "ddp",
    layers: Sequence[nn.Module] = (),
    precision: torch.dtype | None = None,
    unused: bool = False,
) -> Iterator[Replicas]:
    """Distribute a module over the ranks for one training round. Collective.

    Args: see `Replicas` and `Shards`.
    """
    kind = replicas_class(strategy, world.has_group)
    with world.group() if kind.needs_group and world.has_group else contextlib.nullcontext():
        replicas = kind(module, world, exact, layers, precision, unused)
        try:
            yield replicas
        finally:
            replicas.close()
            gc.collect()
