"""One module trained by the ranks: whole on every rank (DDP), cut into shards (FSDP2), or on root alone."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from .shards import whole
from .world import World

Strategy = Literal["ddp", "fsdp", "single"]


class Replicas:
    """The whole module on every rank, with gradients summed over the ranks (DistributedDataParallel).

    Args:
        module: a function of batches.
        exact: sum micro-batch gradients in float64, so that the sum (rounded to the parameters' precision) does not
            depend on which rank computed what. Costs 8 bytes per parameter.
        layers, precision: see `Shards`.

    Attributes:
        bare: the module.
        module: the same, wrapped: what a gradient is taken of.
    """

    needs_group = True

    def __init__(
        self,
        module: nn.Module,
        world: World,
        exact: bool,
        layers: Sequence[nn.Module] = (),
        precision: torch.dtype | None = None,
    ):
        self._world, self.bare, self.exact = world, module, exact
        self._size = world.size  # ranks that compute
        self.module = self._wrapped(layers, precision)

    def _wrapped(self, layers, precision):
        if not torch.distributed.is_initialized():
            return self.bare
        device = self._world.device
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(self.bare, device_ids=ids)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What this rank trains, by name: its shards, where there are some."""
        return {name: p for name, p in self.bare.named_parameters() if p.requires_grad}

    def share(self, items: Sequence) -> list:
        """This rank's items for `gradient`; None where it takes part without one: every rank has equally many."""
        own = list(items[self._world.rank :: self._size])
        return own + [None] * (-(-len(items) // self._size) - len(own))

    def claim(self, n: int, tick: Callable[[int], None]) -> Iterator[int]:
        """Items 0 .. n-1 for forward passes without a gradient; some may come to two ranks. Collective."""
        return self._world.claim(n, tick)

    def gradient(self, losses: Iterable[Callable[[nn.Module], torch.Tensor]]) -> None:
        """Set every parameter's .grad to the gradient of the sum of all ranks' losses. Collective.

        Args:
            losses: one function per micro-batch of this rank (`share`), module -> scalar loss.
        """
        losses, trained = list(losses), self.parameters().values()
        exact = {p: torch.zeros_like(p, dtype=torch.float64) for p in trained} if self.exact else {}
        for i, loss in enumerate(losses):
            synchronise = i == len(losses) - 1 and not self.exact
            with contextlib.nullcontext() if synchronise or self.module is self.bare else self.module.no_sync():
                # DDP averages over the ranks; the gradient wanted is that of the sum.
                (loss(self.module) * (1 if self.exact else self._size)).backward()
            for p, total in exact.items():
                total += p.grad.double()
                p.grad = None
        for p, total in exact.items():
            if self.module is not self.bare:
                torch.distributed.all_reduce(total)
            p.grad = total.to(p.dtype)

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to a norm of at most `max_norm`; gives the norm that it had. Collective."""
        return float(whole(nn.utils.clip_grad_norm_(self.parameters().values(), max_norm)))

    def close(self) -> None:
        self.module = self.bare


class Alone(Replicas):
    """Root trains, without a process group; the others share the forward passes without a gradient, and wait."""

    needs_group = False

    def __init__(self, module, world, *further):
        super().__init__(module, world, *further)
        self._size = 1

    def parameters(self):
        return super().parameters() if self._world.is_root else {}

    def share(self, items):
        return super().share(items) if self._world.is_root else []

    def clip(self, max_norm):
        return self._world.bcast(super().clip(max_norm))


class Shards(Replicas):
    """A shard of every weight, gradient and optimizer moment on each rank (FSDP2; Zhao et al. 2023).

    A layer is gathered while it computes; what is in none (embeddings, norm, head) while the module does. Every forward
    and backward pass is collective, so that every rank makes equally many. Gradients are summed after each
    micro-batch: kept until the last one, they would be as large as the model. In the order that the ranks make: there
    is no exact sum. The module stays cut, and is of no use afterwards.

    Args:
        layers: the parts that are gathered one after the other.
        precision: of the computation, float32 if None; weights, sums of gradients and moments are float32.
    """

    def _wrapped(self, layers, precision):
        if self.exact:
            raise ValueError("sharded gradients have no exact sum")
        mesh = init_device_mesh(self._world.device.type, (self._size,))
        lower = precision if precision != torch.float32 else None
        mixed = MixedPrecisionPolicy(param_dtype=lower, reduce_dtype=lower and torch.float32)
        for part in [*layers, self.bare]:
            fully_shard(part, mesh=mesh, mp_policy=mixed)
        self.bare.register_forward_hook(_cut_again_without_gradient)
        return self.bare

    def claim(self, n, tick):
        return self._world.turns(n, tick)

    def gradient(self, losses):
        for loss in losses:
            # FSDP averages over the ranks; the gradient wanted is that of the sum.
            (loss(self.module) * self._size).backward()


def _cut_again_without_gradient(module, *_):
    """FSDP2 leaves the outermost parameters gathered for a backward pass. If none comes, they stay in place of the
    shards, and an optimizer that is made then trains them in vain."""
    if not torch.is_grad_enabled():
        module.reshard()


def kind_of(strategy: Strategy, size: int) -> type[Replicas]:
    """The class by which this many ranks train one module; one rank trains it as it is."""
    return {"ddp": Replicas, "fsdp": Shards, "single": Alone}[strategy] if size > 1 else Replicas


@contextlib.contextmanager
def replicate(
    world: World,
    module: nn.Module,
    exact: bool,
    strategy: Strategy = "ddp",
    layers: Sequence[nn.Module] = (),
    precision: torch.dtype | None = None,
) -> Iterator[Replicas]:
    """The ranks' view of a module for one training round. Collective.

    Args: see `Replicas` and `Shards`; `precision` is float32 if not given.
    """
    kind = kind_of(strategy, world.size)
    with world.group() if kind.needs_group else contextlib.nullcontext():
        made = kind(module, world, exact, layers, precision)
        try:
            yield made
        finally:
            made.close()
            gc.collect()
