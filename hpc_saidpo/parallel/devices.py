"""The GPU of each rank, decided from what all ranks see: one rank alone cannot know that it shares its GPU."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Requested = Literal["auto", "gpu", "cpu"]
ON_CPU = "set run.device=cpu to compute on CPUs"
HIDDEN = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide every GPU


class Unusable(Exception):
    """The ranks cannot use the devices that they see. The message names rank, host and remedy."""


@dataclass(frozen=True)
class Sight:
    """The GPUs that one rank sees.

    Attributes:
        host: name of the node, for messages.
        node: number of the node's first rank, which identifies the node.
        gpus: the UUID of each visible GPU, in torch's order.
        n_given: number of GPUs that Slurm gave this step on the node; 0 if it gave none, or without Slurm.
        obstacle: the reason why no GPU is visible; "" if one is.
    """

    rank: int
    host: str
    node: int
    gpus: tuple[str, ...] = ()
    n_given: int = 0
    obstacle: str = ""

    @property
    def place(self) -> str:
        return f"rank {self.rank} on host {self.host}"


def visible_gpus() -> tuple[str, ...]:
    """Return the UUIDs of the GPUs that torch sees in this process."""
    import torch

    return tuple(str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count()))


def look(rank: int, node: int) -> Sight:
    """Return the GPUs that this rank sees. Not collective."""
    gpus = visible_gpus()
    given = os.environ.get("SLURM_GPUS_ON_NODE", "")
    return Sight(
        rank=rank,
        host=os.uname().nodename,
        node=node,
        gpus=gpus,
        n_given=int(given) if given.isdigit() else 0,
        obstacle="" if gpus else obstacle(),
    )


def obstacle() -> str:
    """Return the reason why torch sees no GPU in this process."""
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in HIDDEN:
        return f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides every GPU"
    driver, built = driver_cuda(), torch.version.cuda
    if torch.version.hip is None and driver is None:
        return "no NVIDIA driver"
    if torch.version.hip is None and built is None:
        return "this torch is built for the CPU only"
    if driver is not None and built is not None and driver // 1000 < int(built.split(".")[0]):
        return f"the driver supports CUDA {driver // 1000}.{driver % 1000 // 10}, this torch needs CUDA {built}"
    return "torch cannot use a GPU here; nvidia-smi may say more"


def driver_cuda() -> int | None:
    """Return the newest CUDA version that the driver supports, as 1000·major + 10·minor; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    return version.value if library.cuDriverGetVersion(ctypes.byref(version)) == 0 else None


def assign(sights: Sequence[Sight], requested: Requested) -> list[int | None]:
    """Return the device of each rank: the index of one of its visible GPUs, or None for the CPU.

    Two ranks never share a GPU. Ranks that see the same GPUs take them in order. Ranks that see several GPUs of which
    some are hidden (--gpu-bind=closest) get different ones too, if that is possible.

    Args:
        sights: what each rank sees, in the order of ranks.
        requested: run.device.

    Raises:
        Unusable: some ranks see a GPU and others none; ranks would share a GPU; fewer GPUs are visible than Slurm gave;
            or a GPU was requested and there is none. Names rank, host and remedy.
    """
    if requested == "cpu":
        return [None] * len(sights)
    blind = [sight for sight in sights if not sight.gpus]
    if blind:
        _check_all_blind(sights, blind, requested)
        return [None] * len(sights)
    chosen: dict[int, int | None] = {}
    for node in dict.fromkeys(sight.node for sight in sights):
        chosen |= _on_node([sight for sight in sights if sight.node == node])
    return [chosen[sight.rank] for sight in sights]


def _check_all_blind(sights: Sequence[Sight], blind: Sequence[Sight], requested: Requested) -> None:
    """Check that computing on CPUs is what the user wants, when at least one rank sees no GPU."""
    first = blind[0]
    if len(blind) < len(sights):
        other = next(sight for sight in sights if sight.gpus)
        raise Unusable(
            f"{first.place} sees no GPU ({first.obstacle}), but {other.place} sees {len(other.gpus)}. All ranks must "
            f"compute on GPUs, or all on CPUs. Request one GPU per rank (--gpus-per-task=1), or {ON_CPU}"
        )
    if requested == "gpu":
        raise Unusable(f"run.device=gpu, but {first.place} sees no GPU: {first.obstacle}. Mend that, or {ON_CPU}")
    given = next((sight for sight in sights if sight.n_given), None)
    if given:
        raise Unusable(
            f"Slurm gave host {given.host} {_gpus(given.n_given)}, but {given.place} sees none: {given.obstacle}. Mend "
            f"that (hpc-saidpo doctor says more), or {ON_CPU}"
        )


def _on_node(sights: Sequence[Sight]) -> dict[int, int | None]:
    """Return the GPU index of each rank of one node, by rank."""
    host, visible = sights[0].host, {gpu for sight in sights for gpu in sight.gpus}
    n_given = max(sight.n_given for sight in sights)
    if len(visible) < n_given:
        raise Unusable(
            f"Slurm gave host {host} {_gpus(n_given)}, but {_ranks(sights)} see {len(visible)}: the others are hidden "
            f"(CUDA_VISIBLE_DEVICES) or broken (nvidia-smi). Mend that, or request {_gpus(len(visible))}"
        )
    owner: dict[str, Sight] = {}
    for sight in sights:
        if not _find_gpu(sight, owner, set()):
            raise Unusable(
                f"{_ranks(sights)} on host {host} see {_gpus(len(visible))}, and {sight.place} would share one: start "
                f"one rank per GPU (--ntasks-per-node={len(visible)} --gpus-per-task=1), or {ON_CPU}"
            )
    return {sight.rank: sight.gpus.index(gpu) for gpu, sight in owner.items()}


def _find_gpu(sight: Sight, owner: dict[str, Sight], tried: set[str]) -> bool:
    """Give a rank a free GPU. If it sees none, let an owner change to another one (a bipartite matching).

    Args:
        owner: the rank that has each GPU; changed.
        tried: GPUs whose owner was already asked to change; changed.
    """
    for gpu in (*(g for g in sight.gpus if g not in owner), *(g for g in sight.gpus if g in owner)):
        if gpu in tried:
            continue
        tried.add(gpu)
        if gpu not in owner or _find_gpu(owner[gpu], owner, tried):
            owner[gpu] = sight
            return True
    return False


def _gpus(n: int) -> str:
    return f"{n} GPU{'s' * (n != 1)}"


def _ranks(sights: Iterable[Sight]) -> str:
    numbers = [str(sight.rank) for sight in sights]
    return f"rank {numbers[0]}" if len(numbers) == 1 else f"ranks {', '.join(numbers)}"
