"""Preflight checks of MPI, nodes, cores, GPUs and the network between the ranks. Collective."""

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
    """Check MPI, nodes, cores, GPUs and all-reduce."""
    return [_mpi(world), _nodes(world), _cores(world), _gpus(world), *_network(world)]


def _mpi(world: World) -> Finding:
    """Check the MPI library, the launcher and the thread level."""
    facts = world.describe()
    libraries = set(world.gather(facts["library"]))
    text = f"{world.size} rank{'s' * (world.size > 1)}; {facts['library']}"
    if world.size == 1:
        warning = (
            "one process. Start the check like the run: srun --mpi=pmi2 (or mpiexec -n 2) python -m mpi4py "
            "-m hpc_saidpo doctor ..."
        )
        return judge("MPI", text, warning=warning if "SLURM_JOB_ID" in os.environ or facts["launcher"] else "")
    text += f"; started by {facts['launcher']}; threads {facts['threads']}"
    failure = warning = ""
    if len(libraries) > 1:
        failure = f"ranks use different libraries ({', '.join(libraries)}): set MPI4PY_LIBMPI to one library for all"
    if facts["threads"] != "MULTIPLE":
        warning = (
            "without MPI_THREAD_MULTIPLE each rank has a fixed share of the work, and idle ranks cannot help: use an "
            "MPI library built with it"
        )
    return judge("MPI", text, failure=failure, warning=warning)


def _nodes(world: World) -> Finding:
    """Count the ranks of each node."""
    ranks_of = Counter(world.gather(platform.node()))
    text = ", ".join(f"{host}: {n}" for host, n in sorted(ranks_of.items()))
    uneven = len(set(ranks_of.values())) > 1
    return judge(
        "ranks per node", text, warning="nodes have different numbers of ranks: set --ntasks-per-node" * uneven
    )


def _cores(world: World) -> Finding:
    """Count the cores for each rank, on the node with the fewest."""
    cores = sorted(os.sched_getaffinity(0))
    together: dict[str, set[int]] = {}
    for host, of_rank in world.gather((platform.node(), cores)):
        together.setdefault(host, set()).update(of_rank)
    ranks_of = Counter(world.gather(platform.node()))
    least = min(len(together[host]) / n for host, n in ranks_of.items())
    text = f"{least:g} per rank, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    few = "fewer cores than ranks: ranks share cores; request --cpus-per-task=8 or so" * (least < 1)
    return judge("cores", text, warning=few)


def _gpus(world: World) -> Finding:
    """Check that every rank has its GPU, or no rank has one."""
    n_visible = torch.cuda.device_count()
    mine = None
    if n_visible:
        properties = torch.cuda.get_device_properties(world.local_rank if n_visible > 1 else 0)
        mine = (platform.node(), str(properties.uuid), properties.name, properties.total_memory)
    everyones = world.gather(mine)
    gpus = [gpu for gpu in everyones if gpu]
    if not gpus:
        requested = any(k.startswith("SLURM_GPUS") for k in os.environ)
        remedy = "the job requested GPUs, but torch sees none: see driver and CUDA below" if requested else ""
        return judge("GPUs", "none: the run computes on the CPU", failure=remedy)
    shared = [key for key, n in Counter(gpu[:2] for gpu in gpus).items() if n > 1]
    without = [rank for rank, gpu in enumerate(everyones) if gpu is None]
    names = Counter(gpu[2] for gpu in gpus)
    text = ", ".join(f"{n} × {name}" for name, n in names.items())
    failure = ""
    if shared:
        failure = f"{len(shared)} GPU(s) are used by several ranks: one rank per GPU, --gpus-per-task=1"
    elif without:
        failure = f"ranks {without} see no GPU while others do: set --gpus-per-task=1"
    return judge("GPUs", text, failure=failure, warning="ranks compute on different kinds of GPUs" * (len(names) > 1))


def _network(world: World) -> list[Finding]:
    """Check the network interfaces and measure all-reduce; no finding for one rank."""
    if world.size == 1:
        return []
    names = sorted({name for of_rank in world.gather(_interfaces()) for name in of_rank})
    chosen = {k: v for k, v in os.environ.items() if k in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA")}
    text = ", ".join(names) + "".join(f"; {k}={v}" for k, v in chosen.items())
    lost = [v for k, v in chosen.items() if k.endswith("IFNAME") and v.lstrip("^=").split(",")[0] not in names]
    remedy = f"{', '.join(lost)}: no node has it; unset the variable or name one of these" * bool(lost)
    backend, rate = world.all_reduce_rate(REDUCED_BYTES)
    slow = (
        "slow between GPUs: name the fast interface in NCCL_SOCKET_IFNAME, see NCCL_DEBUG=INFO; on one node try "
        "SAIDPO_SRUN=--gpu-bind=none, where ranks see each other's GPUs"
    ) * (backend == "nccl" and rate < SLOW_BYTES_PER_S)
    reduced = f"{backend}, {rate / 1e9:.2f} GB/s bus bandwidth ({REDUCED_BYTES >> 20} MiB)"
    return [judge("interfaces", text, failure=remedy), judge("all-reduce", reduced, warning=slow)]


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]
