"""The ranks: the only module that imports mpi4py or torch.distributed.

MPI carries facts, the disk carries data, NCCL (Gloo on CPU) carries gradients. Every rank calls every collective.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib.util
import os
import socket
import stat
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TextIO

import numpy as np
import torch
from torch import nn

from .records import RunError

# Set by mpiexec or srun for the processes they start.
_LAUNCHER_MARKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID")
_POLL_S = 0.001  # pause between two looks of a waiting rank: it must not burn the core that another computes on
_DRAIN_S = 2.0  # how long a failing rank waits for its last words to be read


class World:
    """One process without MPI; also the interface of `MPIWorld`, whose docstrings it carries."""

    rank, size, local_rank, local_size = 0, 1, 0, 1

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """This rank's GPU, or the CPU where there is none.

        Raises:
            RunError: more ranks than GPUs on a node.
        """
        n_gpus = torch.cuda.device_count()
        if n_gpus == 0:
            return torch.device("cpu")
        # A launcher that masks GPUs per rank (--gpus-per-task) leaves exactly one visible.
        if n_gpus > 1 and self.local_size > n_gpus:
            raise RunError(f"{self.local_size} ranks on a node with {n_gpus} GPUs: start one rank per GPU")
        return torch.device("cuda", self.local_rank if n_gpus > 1 else 0)

    def use_threads(self, n: int) -> int:
        """Compute with n threads on this rank; 0 means this node's cores divided by its ranks. Returns the number."""
        n = n or max(1, len(os.sched_getaffinity(0)) // self.local_size)
        torch.set_num_threads(n)
        return n

    def claim(self, n: int, tick: Callable[[int], None] = lambda index: None) -> Iterator[int]:
        """Work items 0 .. n-1: each goes to exactly one rank, the next to whoever is free. Collective.

        `tick(index)` is called on root as each item is handed out.
        """
        for index in range(n):
            tick(index)
            yield index

    def barrier(self) -> None:
        """Wait for every rank, sleeping rather than spinning."""

    def bcast(self, value):
        """Root's value on every rank."""
        return value

    def gather(self, value) -> list:
        """Every rank's value, in rank order, on every rank."""
        return [value]

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Elementwise sum over ranks, on every rank."""
        return np.asarray(array)

    def on_root(self, function: Callable):
        """Run on root; give its result, or raise its failure, on every rank."""
        return function()

    def abort(self, code: int) -> None:
        """End every rank of the job at once; what was printed before is still read."""
        drain(sys.stdout, sys.stderr)
        os._exit(code)

    @contextlib.contextmanager
    def replicas(self, model: nn.Module, exact: bool):
        """A data-parallel view of the model for one training round."""
        yield Replicas(model, self, exact)


class MPIWorld(World):
    """The ranks of an MPI job."""

    def __init__(self, mpi):
        self._mpi = mpi
        self._comm = mpi.COMM_WORLD
        self._dispatch = self._comm.Dup()
        self._threads_allowed = mpi.Query_thread() == mpi.THREAD_MULTIPLE
        self.rank, self.size = self._comm.rank, self._comm.size
        node = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = node.rank, node.size
        node.Free()
        self._n_claims = 0
        self._n_rounds = 0

    def claim(self, n, tick=lambda index: None):
        self._n_claims += 1
        if self.size == 1 or not self._threads_allowed:
            yield from self._static_share(n, tick)
        elif self.is_root:
            yield from self._claim_as_root(n, tick)
        else:
            yield from self._claim_remotely(self._n_claims % 1000)

    def _static_share(self, n, tick):
        for index in range(self.rank, n, self.size):
            if self.is_root:
                tick(index)
            yield index

    def _claim_as_root(self, n, tick):
        # A point-to-point dispatcher: an MPI RMA counter stalls while its target rank computes.
        counter = _Counter(n, tick)
        serve = threading.Thread(target=self._serve, args=(counter, self._n_claims % 1000), daemon=True)
        serve.start()
        while (index := counter.next()) is not None:
            yield index
        while serve.is_alive():
            serve.join(0.05)

    def _serve(self, counter, tag):
        still_working = self.size - 1
        while still_working:
            status = self._mpi.Status()
            if not self._dispatch.iprobe(source=self._mpi.ANY_SOURCE, tag=tag, status=status):
                time.sleep(_POLL_S)
                continue
            self._dispatch.recv(source=status.source, tag=tag)
            index = counter.next()
            still_working -= index is None
            self._dispatch.send(index, dest=status.source, tag=tag)

    def _claim_remotely(self, tag):
        while True:
            self._dispatch.send(None, dest=0, tag=tag)
            while not self._dispatch.iprobe(source=0, tag=tag):
                time.sleep(_POLL_S)
            index = self._dispatch.recv(source=0, tag=tag)
            if index is None:
                return
            yield index

    def barrier(self):
        request, pause_s = self._comm.Ibarrier(), _POLL_S / 2
        while not request.Test():
            time.sleep(pause_s)
            pause_s = min(0.05, 1.5 * pause_s)

    def bcast(self, value):
        self.barrier()
        return self._comm.bcast(value, root=0)

    def gather(self, value):
        self.barrier()
        return self._comm.allgather(value)

    def sum(self, array):
        array = np.ascontiguousarray(array)
        total = np.empty_like(array)
        self.barrier()
        self._comm.Allreduce(array, total)
        return total

    def on_root(self, function):
        value, error, told = None, None, None
        if self.is_root:
            try:
                value = function()
            except Exception as caught:  # noqa: BLE001 - it is raised again, on every rank
                # Told in words: an exception of any class may fail to travel.
                error, told = caught, (isinstance(caught, RunError), str(caught), type(caught).__name__)
        told, value = self.bcast((told, value))
        if error is not None:
            raise error
        if told is not None:
            mendable, message, name = told
            raise RunError(message) if mendable else RuntimeError(f"{name} on rank 0: {message}")
        return value

    def abort(self, code):
        drain(sys.stdout, sys.stderr)
        self._comm.Abort(code)

    @contextlib.contextmanager
    def replicas(self, model, exact):
        """A data-parallel view of the model; its process group lives for this round only."""
        self._n_rounds += 1
        self._join_group()
        replicas = Replicas(model, self, exact)
        try:
            yield replicas
        finally:
            replicas.close()
            gc.collect()
            torch.distributed.destroy_process_group()
        # Gloo's threads may outlive the group on another rank; leaving together avoids an abort at exit.
        self.barrier()

    def _join_group(self):
        """torch.distributed from the MPI world: root opens a store on a free port and tells the others."""
        one_node = self.local_size == self.size
        if one_node:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        wait = timedelta(minutes=10)
        store = None
        if self.is_root:
            host = os.environ.get("MASTER_ADDR") or ("127.0.0.1" if one_node else socket.gethostname())
            store = torch.distributed.TCPStore(host, 0, self.size, is_master=True, wait_for_workers=False, timeout=wait)
        address = self.bcast((store.host, store.port) if self.is_root else None)
        if not self.is_root:
            store = torch.distributed.TCPStore(*address, self.size, is_master=False, timeout=wait)
        on_gpu = self.device.type == "cuda"
        torch.distributed.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=torch.distributed.PrefixStore(f"round{self._n_rounds}", store),
            rank=self.rank,
            world_size=self.size,
            timeout=wait,
            device_id=self.device if on_gpu else None,
        )


class _Counter:
    """The numbers 0 .. n-1, once each, to any thread."""

    def __init__(self, n, tick):
        self._next, self._n, self._tick = 0, n, tick
        self._lock = threading.Lock()

    def next(self) -> int | None:
        with self._lock:
            if self._next >= self._n:
                return None
            index = self._next
            self._next += 1
            self._tick(index)
            return index


class Replicas:
    """One model on every rank, with gradients summed over the ranks.

    Attributes:
        module: what losses call: the model, wrapped in DistributedDataParallel when a process group is up.
        exact: sum micro-batch gradients in float64, so that the sum (rounded to the parameters' precision) does not
            depend on which rank computed what. Costs 8 bytes per parameter.
    """

    def __init__(self, model: nn.Module, world: World, exact: bool):
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


def drain(*streams: TextIO) -> None:
    """Flush, and wait until the other end of a pipe has read it: an abort makes a launcher drop what it has not."""
    deadline = time.monotonic() + _DRAIN_S
    for stream in streams:
        try:
            stream.flush()
            is_pipe = stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
            while is_pipe and _unread(stream.fileno()) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        except (OSError, ValueError):  # closed, or no file at all
            continue


def _unread(handle: int) -> int:
    """Bytes in a pipe."""
    return struct.unpack("i", fcntl.ioctl(handle, termios.FIONREAD, bytes(4)))[0]


def connect() -> World:
    """The world this process was started in: `MPIWorld` under mpiexec or srun, one process otherwise.

    Raises:
        RunError: a launcher started several processes but MPI is missing, or does not see the others.
    """
    n_expected = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if not any(mark in os.environ for mark in _LAUNCHER_MARKS) and n_expected <= 1:
        return World()
    if importlib.util.find_spec("mpi4py") is None:
        raise RunError("started by an MPI launcher, but mpi4py is not installed: pip install mpi4py mpich")
    try:
        from mpi4py import MPI
    except RuntimeError as error:
        raise RunError(f"mpi4py found no MPI library ({error}): pip install mpich, or set MPI4PY_LIBMPI") from error
    if n_expected > 1 and MPI.COMM_WORLD.size == 1 and not any(mark in os.environ for mark in _LAUNCHER_MARKS):
        raise RunError(f"srun started {n_expected} tasks that do not see each other: use srun --mpi=pmi2 (or pmix)")
    return MPIWorld(MPI)
