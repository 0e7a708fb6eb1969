"""A torch.distributed process group: joining it, and a world of one process that has one."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from .world import World

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage] - public, but without __all__

TIMEOUT = timedelta(minutes=10)


def join(store: Store, rank: int, size: int, device: torch.device) -> None:
    """Initialise torch.distributed: NCCL between GPUs, Gloo between CPUs. Collective."""
    import torch

    on_gpu = device.type == "cuda"
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
        device_id=device if on_gpu else None,
    )


def leave() -> None:
    """Destroy the process group."""
    import torch

    gc.collect()
    torch.distributed.destroy_process_group()


class GroupOfOne(World):
    """One process that trains in a process group, as several ranks do: for checks of NCCL, DDP and FSDP on one GPU.

    Args:
        device: that of the process.
    """

    has_group = True

    def __init__(self, device: torch.device):
        super().__init__()
        self._device = device

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        import torch

        store = torch.distributed.HashStore()  # pyright: ignore[reportPrivateImportUsage] - public, but without __all__
        join(store, 0, 1, self.device)
        try:
            yield
        finally:
            leave()

    def exercise(self, n: int) -> tuple[str, dict[str, float]]:
        """Run every collective that training uses on n numbers, within `group`.

        Returns:
            The backend; for each collective the largest difference from what a group of one must receive.
        """
        import torch

        sent = torch.arange(n, dtype=torch.float32, device=self.device)
        group = torch.distributed
        collectives: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
            "all_reduce": lambda x, _: group.all_reduce(x),
            "broadcast": lambda x, _: group.broadcast(x, 0),
            "all_gather": lambda x, y: group.all_gather([x], y),
            "reduce_scatter": lambda x, y: group.reduce_scatter(x, [y]),
            "all_to_all": lambda x, y: group.all_to_all_single(x, y),
        }
        errors = {}
        for name, collective in collectives.items():
            received = sent.clone() if name in ("all_reduce", "broadcast") else torch.zeros_like(sent)
            collective(received, sent)
            errors[name] = float((received - sent).abs().max())
        return group.get_backend(), errors
