"""The ranks of an MPI job."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import threading
import time
from datetime import timedelta

import numpy as np
import torch

from ..records import RunError
from .world import POLL_S, World, drain

_DONE, _STOP = -1, -2  # in place of the index of a work item
_GROUP_TIMEOUT = timedelta(minutes=10)


class MPIWorld(World):
    """The ranks of an MPI job."""

    def __init__(self, mpi):
        super().__init__()
        self._mpi = mpi
        self._comm = mpi.COMM_WORLD
        self._dispatch = self._comm.Dup()
        self._threads_allowed = mpi.Query_thread() == mpi.THREAD_MULTIPLE
        self.rank, self.size = self._comm.rank, self._comm.size
        node = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = node.rank, node.size
        node.Free()
        self._n_claims = 0
        self._n_groups = 0

    def stopping(self):
        return next(filter(None, self.gather(self.told.by)), "")

    def claim(self, n, tick=lambda index: None):
        self._n_claims += 1
        if self.size == 1 or not self._threads_allowed:
            yield from self._static_share(n, tick)
        elif self.is_root:
            yield from self._claim_as_root(n, tick)
        else:
            yield from self._claim_remotely(self._n_claims % 1000)

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

    def _claim_as_root(self, n, tick):
        # A point-to-point dispatcher: an MPI RMA counter stalls while its target rank computes.
        counter = _Counter(n, tick)
        serve = threading.Thread(target=self._serve, args=(counter, self._n_claims % 1000), daemon=True)
        serve.start()
        while (index := counter.next(bool(self.told))) >= 0:
            yield index
        while serve.is_alive():
            serve.join(0.05)
        if index == _STOP:
            self.stop_if_told()

    def _serve(self, counter, tag):
        still_working = self.size - 1
        while still_working:
            status = self._mpi.Status()
            if not self._dispatch.iprobe(source=self._mpi.ANY_SOURCE, tag=tag, status=status):
                time.sleep(POLL_S)
                continue
            told = self._dispatch.recv(source=status.source, tag=tag)
            index = counter.next(told)
            still_working -= index < 0
            self._dispatch.send(index, dest=status.source, tag=tag)

    def _claim_remotely(self, tag):
        index = 0
        while index >= 0:
            self._dispatch.send(bool(self.told), dest=0, tag=tag)
            while not self._dispatch.iprobe(source=0, tag=tag):
                time.sleep(POLL_S)
            index = self._dispatch.recv(source=0, tag=tag)
            if index >= 0:
                yield index
        if index == _STOP:
            self.stop_if_told()

    def barrier(self):
        request, pause_s = self._comm.Ibarrier(), POLL_S / 2
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
    def group(self):
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


class _Counter:
    """The numbers 0 .. n-1, once each, to any thread; none any more once a rank was told to stop."""

    def __init__(self, n, tick):
        self._next, self._n, self._tick = 0, n, tick
        self._told = False
        self._lock = threading.Lock()

    def next(self, told: bool) -> int:
        with self._lock:
            if self._next >= self._n:
                return _DONE
            self._told |= told
            if self._told:
                return _STOP
            index = self._next
            self._next += 1
            self._tick(index)
            return index
