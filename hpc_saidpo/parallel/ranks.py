"""The ranks of an MPI job."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import numpy as np

from ..errors import decode_failure, encode_failure
from . import group, idle, launched, slices
from .claims import Claims, OwnClaims
from .dispatch import CLAIM_TAGS, Progress, sleep_until
from .drain import drain
from .task import Task
from .world import POLL_S, World

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


class MPIWorld(World):
    """The ranks of an MPI job. The docstrings of `World` hold for the methods."""

    def __init__(self, mpi: ModuleType):
        super().__init__()
        self._mpi = mpi
        self._comm: MPI.Intracomm = mpi.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        self.has_group = self.size > 1
        node = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.node, self.local_size = node.bcast(self.rank), node.size
        node.Free()
        self.hosts = self._comm.allgather(self.hosts[0])
        self._leaving = self._comm.Dup()  # ranks that do not leave use the other one
        self._n_claims = 0
        self._progress = None
        if self.size > 1 and mpi.Query_thread() == mpi.THREAD_MULTIPLE:
            self._progress = Progress(mpi, self._comm.Dup())

    def stop_signal(self) -> str:
        return next(filter(None, self.gather(self.stop_request.signal_name)), "")

    def claims(self, n: int, task: Task | None = None) -> Claims:
        self._work, task = idle.Work(), task or Task()
        self._n_claims += 1
        if self._progress is None:
            return OwnClaims(range(self.rank, n, self.size), task, self._work, self)
        return self._progress.claims(CLAIM_TAGS[self._n_claims % len(CLAIM_TAGS)], n, task, self, self._work)

    def idle_shares(self) -> list[float]:
        if self.size == 1:
            return super().idle_shares()
        self.barrier()
        return idle.idle_shares(self.gather(self._work.elapsed()))

    def barrier(self) -> None:
        request = self._comm.Ibarrier()
        sleep_until(request.Test)

    def bcast(self, value: T) -> T:
        self.barrier()
        return slices.bcast(self._mpi, self._comm, value)

    def gather(self, value: T) -> list[T]:
        self.barrier()
        return slices.gather(self._mpi, self._comm, value)

    def sum(self, array: np.ndarray) -> np.ndarray:
        array = np.ascontiguousarray(array)
        total = np.empty_like(array)
        self.barrier()
        self._comm.Allreduce(array, total)
        return total

    def on_root(self, function: Callable[[], T]) -> T:
        value, error, failure = None, None, None
        if self.is_root:
            try:
                value = function()
            except Exception as caught:  # noqa: BLE001 - it is raised again, on every rank
                error, failure = caught, encode_failure(caught, self.rank, self.name_of(self.rank))
        failure, value = self.bcast((failure, value))
        if failure is not None:
            raise decode_failure(failure, error)
        return cast(T, value)

    def describe(self) -> dict[str, str]:
        levels = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
        by_value = {getattr(self._mpi, f"THREAD_{name}"): name for name in levels}
        return {
            "library": self._mpi.Get_library_version().splitlines()[0].strip(" \0"),
            "threads": by_value[self._mpi.Query_thread()],
            "launcher": ", ".join(launched.marks()) or "none",
        }

    def all_reduce_rate(self, n_bytes: int, repeats: int = 5) -> tuple[str, float]:
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

    def leave(self, code: int, within_s: float = math.inf) -> None:
        deadline, all_here = time.monotonic() + within_s, self._leaving.Ibarrier()
        while not (is_over := all_here.Test()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if not is_over:
            return
        if self._progress:
            self._progress.end()
        drain(sys.stdout, sys.stderr)
        self._mpi.Finalize()
        super().leave(code)

    def abort(self, code: int) -> NoReturn:
        drain(sys.stdout, sys.stderr)
        self._comm.Abort(code)
        super().abort(code)  # MPICH's Abort may return before the launcher has ended this process

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        if self.local_size == self.size:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        store = self._open_store()
        self.barrier()  # root answers for this store now, and not for an earlier group's
        group.join(store, self.rank, self.size, self.device)
        try:
            yield
        finally:
            group.leave()
        # Gloo's threads may outlive the group on another rank. If all ranks leave together, none aborts at its exit.
        self.barrier()
        if self._progress:
            store.close()

    def _open_store(self) -> Any:
        """Return the store through which torch's ranks find each other: over MPI, if MPI lets threads call it."""
        import torch

        if self._progress:
            from .store import MPIStore  # imports torch

            return MPIStore(self._progress, self.rank, self.name_of(0), group.TIMEOUT)
        open_store = functools.partial(
            torch.distributed.TCPStore,  # pyright: ignore[reportPrivateImportUsage] - public, without __all__
            world_size=self.size,
            timeout=group.TIMEOUT,
        )
        if self.is_root:
            host = os.environ.get("MASTER_ADDR") or socket.gethostname()
            store = open_store(host, 0, is_master=True, wait_for_workers=False)
            self.bcast((store.host, store.port))
            return store
        host, port = self.bcast(("", 0))
        return open_store(host, port, is_master=False)
