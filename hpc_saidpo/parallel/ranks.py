"""The ranks of an MPI job."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import time
from datetime import timedelta

import numpy as np

from . import idle
from .dispatch import STOP, Progress, sleep_until
from .world import World, drain, from_words, in_words

# Set by mpiexec or srun for the processes they start.
LAUNCHER_MARKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID")
_GROUP_TIMEOUT = timedelta(minutes=10)


class MPIWorld(World):
    """The ranks of an MPI job."""

    def __init__(self, mpi):
        super().__init__()
        self._mpi = mpi
        self._comm = mpi.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        node = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = node.rank, node.size
        node.Free()
        self._n_claims = 0
        self._n_groups = 0
        self._work = idle.Work()
        self._progress = None
        if self.size > 1 and mpi.Query_thread() == mpi.THREAD_MULTIPLE:
            self._progress = Progress(mpi, self._comm.Dup())

    def stopping(self):
        return next(filter(None, self.gather(self.told.by)), "")

    def claim(self, n, tick=lambda index: None):
        self._work = idle.Work()
        return self._work.at(self._claim(n, tick))

    def idle_shares(self):
        if self.size == 1:
            return super().idle_shares()
        self.barrier()
        return idle.shares(self.gather(self._work.now()))

    def _claim(self, n, tick):
        self._n_claims += 1
        if self._progress is None:
            yield from self._static_share(n, tick)
            return
        take = self._progress.claim(self._n_claims % 1000 + 1, n, tick, self)
        if self.rank < n:
            yield self.rank
        while (index := take()) >= 0:
            yield index
        if index == STOP:
            self.stop_if_told()

    def _static_share(self, n, tick):
        left = False
        for index in range(self.rank, n, self.size):
            left = bool(self.told)
            if left:
                break
            if self.is_root:
                tick(index)
            yield index
        if any(self.gather(left)):
            self.stop_if_told()

    def barrier(self):
        request = self._comm.Ibarrier()
        sleep_until(request.Test)

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
                error, told = caught, in_words(caught, rank=0)
        told, value = self.bcast((told, value))
        if error is not None:
            raise error
        if told is not None:
            raise from_words(told)
        return value

    def describe(self):
        levels = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
        by_value = {getattr(self._mpi, f"THREAD_{name}"): name for name in levels}
        return {
            "library": self._mpi.Get_library_version().splitlines()[0].strip(" \0"),
            "threads": by_value[self._mpi.Query_thread()],
            "launcher": ", ".join(name for name in LAUNCHER_MARKS if name in os.environ) or "none",
        }

    def all_reduce_rate(self, n_bytes, repeats=5):
        import torch

        with self.group():
            data = torch.ones(n_bytes // 4, device=self.device)
            times = []
            for _ in range(repeats + 1):
                self.barrier()
                started = time.perf_counter()
                torch.distributed.all_reduce(data)
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
            backend = torch.distributed.get_backend()
        return backend, 2 * (self.size - 1) / self.size * n_bytes / float(np.median(times[1:]))

    def abort(self, code):
        drain(sys.stdout, sys.stderr)
        self._comm.Abort(code)
        super().abort(code)  # MPICH's Abort may come back before the launcher has ended this process

    @contextlib.contextmanager
    def group(self):
        import torch

        self._n_groups += 1
        self._join_group()
        try:
            yield
        finally:
            gc.collect()
            torch.distributed.destroy_process_group()
        # Gloo's threads may outlive the group on another rank; leaving together avoids an abort at exit.
        self.barrier()

    def _join_group(self):
        """torch.distributed from the MPI world: root opens a store on a free port and tells the others."""
        import torch

        one_node = self.local_size == self.size
        if one_node:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        store = None
        if self.is_root:
            host = os.environ.get("MASTER_ADDR") or ("127.0.0.1" if one_node else socket.gethostname())
            store = torch.distributed.TCPStore(
                host, 0, self.size, is_master=True, wait_for_workers=False, timeout=_GROUP_TIMEOUT
            )
        address = self.bcast((store.host, store.port) if self.is_root else None)
        if not self.is_root:
            store = torch.distributed.TCPStore(*address, self.size, is_master=False, timeout=_GROUP_TIMEOUT)
        on_gpu = self.device.type == "cuda"
        torch.distributed.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=torch.distributed.PrefixStore(f"group{self._n_groups}", store),
            rank=self.rank,
            world_size=self.size,
            timeout=_GROUP_TIMEOUT,
            device_id=self.device if on_gpu else None,
        )
