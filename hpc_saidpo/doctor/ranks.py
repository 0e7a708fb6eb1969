"""Preflight checks of MPI, nodes, cores, GPUs and the network between the ranks. Collective."""

from __future__ import annotations

import os
import platform
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import RunError
from ..parallel import devices, launched
from ..parallel.world import World
from .finding import Finding, judge

REDUCED_BYTES = 64 << 20
SLOW_BYTES_PER_S = 1e9  # of gradients between GPUs: below this an all-reduce of a 1B model's takes more than 8 s


def check(world: World, requested: devices.Requested) -> list[Finding]:
    """Check MPI, nodes, cores, GPUs and all-reduce.

    Args:
        requested: run.device.
    """
    return [_mpi(world), _nodes(world), _cores(world), _gpus(world, requested), *_network(world)]


def _mpi(world: World) -> Finding:
    """Check the MPI library, the launcher and the thread level."""
    facts = world.describe()
    libraries = set(world.gather(facts["library"]))
    text = f"{world.size} rank{'s' * (world.size > 1)}; {facts['library']}"
    if world.size == 1:
        alone = launched.unused_tasks(world.size)
        warning = (
            "one process. Start the check like the run: srun --mpi=pmi2 (or mpiexec -n 2) python -m mpi4py "
            "-m hpc_saidpo doctor ..."
        ) * bool("SLURM_JOB_ID" in os.environ or facts["launcher"])
        return judge("MPI", text, warning=alone or warning)
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
    """Compare the threads of the ranks with the cores that they may use, on each node."""
    everyones = world.gather((world.node, platform.node(), sorted(os.sched_getaffinity(0)), torch.get_num_threads()))
    return judge_cores([Use(*of_rank) for of_rank in everyones], os.environ.get("OMP_NUM_THREADS", ""))


@dataclass(frozen=True)
class Use:
    """The cores that a rank may use, and its threads.

    Attributes:
        node: number of the first rank of the rank's node.
    """

    node: int
    host: str
    cores: Sequence[int]
    n_threads: int


def judge_cores(uses: Sequence[Use], requested: str) -> Finding:
    """Judge the node on which threads and cores differ most.

    Args:
        uses: one for each rank.
        requested: OMP_NUM_THREADS; "" if it is not set.
    """
    balance = []
    for node in dict.fromkeys(use.node for use in uses):
        mine = [use for use in uses if use.node == node]
        n_cores = len({core for use in mine for core in use.cores})
        balance.append((n_cores / sum(use.n_threads for use in mine), n_cores, mine))
    balance.sort(key=lambda of_node: of_node[0])
    ratio, n_cores, mine = balance[0] if balance[0][0] < 1 else balance[-1]
    n_threads, n_ranks = mine[0].n_threads, len(mine)
    text = (
        f"{mine[0].host}: {n_cores} core{'s' * (n_cores > 1)} for {n_ranks} rank{'s' * (n_ranks > 1)} with {n_threads} "
        f"thread{'s' * (n_threads > 1)} each"
    )
    source = f" (OMP_NUM_THREADS={requested})" * bool(requested)
    warning = ""
    if n_cores < n_ranks:
        warning = "fewer cores than ranks: request --cpus-per-task=8 or so; mpirun may need --bind-to none"
    elif ratio < 1:
        warning = f"more threads than cores{source}: threads take turns; lower run.threads or OMP_NUM_THREADS"
    elif ratio >= 2:
        warning = f"most cores are idle{source}: raise --cpus-per-task or OMP_NUM_THREADS, or set run.threads"
    return judge("cores", text, warning=warning)


def _gpus(world: World, requested: devices.Requested) -> Finding:
    """Choose the device of every rank as a run does. If that fails, the other checks use the CPU."""
    try:
        description = world.use_device(requested)
    except RunError as error:
        world.use_device("cpu")
        return judge("GPUs", "not usable", failure=str(error))
    if world.device.type == "cpu":
        return judge("GPUs", f"none: the run computes on the {description}")
    mine = torch.cuda.get_device_name(world.device)
    names = Counter(world.gather(mine))
    given = os.environ.get("SLURM_GPUS_ON_NODE", "")
    idle = int(given) - world.local_size if given.isdigit() else 0
    warning = "ranks compute on different kinds of GPUs" * (len(names) > 1)
    if max(world.gather(idle)) > 0:
        warning = f"{max(world.gather(idle))} GPU(s) of a node have no rank: start one rank per GPU (--ntasks-per-node)"
    return judge("GPUs", ", ".join(f"{n} × {name}" for name, n in names.items()), warning=warning)


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
