"""How the ranks see each other, their cores, their GPUs and their network. Every check is collective."""

from __future__ import annotations

import os
import platform
import socket
from collections import Counter

import torch

from ..parallel.world import World
from .finding import Finding, judge

REDUCED_BYTES = 64 << 20
SLOW_BYTES_PER_S = 1e9  # of gradients between GPUs: below this an all-reduce of a 1B model's takes more than 8 s


def check(world: World) -> list[Finding]:
    """MPI, nodes, cores, GPUs, all-reduce."""
    return [_mpi(world), _nodes(world), _cores(world), _gpus(world), *_network(world)]


def _mpi(world: World) -> Finding:
    known = world.describe()
    libraries = set(world.gather(known["library"]))
    told = f"{world.size} rank{'s' * (world.size > 1)}; {known['library']}"
    if world.size == 1:
        inside = "SLURM_JOB_ID" in os.environ
        warning = (
            "one process. Start it as the run will be: srun --mpi=pmi2 (or mpiexec -n 2) python -m mpi4py "
            "tools/doctor.py ..."
        )
        return judge("MPI", told, warning=warning if inside or known["launcher"] else "")
    told += f"; started by {known['launcher']}; threads {known['threads']}"
    return judge(
        "MPI",
        told,
        failure=f"ranks use different libraries ({', '.join(libraries)}): set MPI4PY_LIBMPI to one for all"
        if len(libraries) > 1
        else "",
        warning="without MPI_THREAD_MULTIPLE work is dealt out beforehand instead of to whoever is free: use an MPI "
        "library built with it"
        if known["threads"] != "MULTIPLE"
        else "",
    )


def _nodes(world: World) -> Finding:
    ranks_of = Counter(world.gather(platform.node()))
    told = ", ".join(f"{host}: {n}" for host, n in sorted(ranks_of.items()))
    uneven = len(set(ranks_of.values())) > 1
    return judge(
        "ranks per node", told, warning="nodes carry different numbers of ranks: set --ntasks-per-node" * uneven
    )


def _cores(world: World) -> Finding:
    cores = sorted(os.sched_getaffinity(0))
    together: dict[str, set[int]] = {}
    for host, own in world.gather((platform.node(), cores)):
        together.setdefault(host, set()).update(own)
    ranks_of = Counter(world.gather(platform.node()))
    least = min(len(together[host]) / n for host, n in ranks_of.items())
    told = f"{least:g} per rank, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    few = "fewer cores than ranks: they will share them; ask for --cpus-per-task=8 or so" * (least < 1)
    return judge("cores", told, warning=few)


def _gpus(world: World) -> Finding:
    n_visible = torch.cuda.device_count()
    mine = None
    if n_visible:
        properties = torch.cuda.get_device_properties(world.local_rank if n_visible > 1 else 0)
        mine = (platform.node(), str(properties.uuid), properties.name, properties.total_memory)
    everyones = world.gather(mine)
    found = [gpu for gpu in everyones if gpu]
    if not found:
        asked = any(k.startswith("SLURM_GPUS") for k in os.environ)
        remedy = "the job asked for GPUs, but torch sees none: see driver and CUDA below" if asked else ""
        return judge("GPUs", "none: the run computes on the CPU", failure=remedy)
    shared = [key for key, n in Counter(gpu[:2] for gpu in found).items() if n > 1]
    without = [rank for rank, gpu in enumerate(everyones) if gpu is None]
    names = Counter(gpu[2] for gpu in found)
    told = ", ".join(f"{n} × {name}" for name, n in names.items())
    failure = ""
    if shared:
        failure = f"{len(shared)} GPU(s) are used by several ranks: one rank per GPU, --gpus-per-task=1"
    elif without:
        failure = f"ranks {without} see no GPU while others do: --gpus-per-task=1 gives each rank one"
    return judge("GPUs", told, failure=failure, warning="ranks compute on unlike GPUs" * (len(names) > 1))


def _network(world: World) -> list[Finding]:
    if world.size == 1:
        return []
    names = sorted({name for own in world.gather(_interfaces()) for name in own})
    chosen = {k: v for k, v in os.environ.items() if k in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA")}
    told = ", ".join(names) + "".join(f"; {k}={v}" for k, v in chosen.items())
    lost = [v for k, v in chosen.items() if k.endswith("IFNAME") and v.lstrip("^=").split(",")[0] not in names]
    remedy = f"{', '.join(lost)}: no node has it; unset the variable or name one of these" * bool(lost)
    backend, rate = world.all_reduce_rate(REDUCED_BYTES)
    slow = backend == "nccl" and rate < SLOW_BYTES_PER_S
    return [
        judge("interfaces", told, failure=remedy),
        judge(
            "all-reduce",
            f"{backend}, {rate / 1e9:.2f} GB/s bus bandwidth ({REDUCED_BYTES >> 20} MiB)",
            warning="slow between GPUs: name the fast interface in NCCL_SOCKET_IFNAME, see NCCL_DEBUG=INFO; on one "
            "node try SAIDPO_SRUN=--gpu-bind=none, where ranks see each other's GPUs"
            if slow
            else "",
        ),
    ]


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]
