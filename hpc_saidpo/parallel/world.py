"""One process, and the interface of every world."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import stat
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

import numpy as np

from ..errors import RunError
from .stop import EXIT_STOPPED, Stopped, StopRequest

if TYPE_CHECKING:
    import torch


POLL_S = 0.001  # pause between two looks of a waiting rank: it must not burn the core that another computes on
_DRAIN_S = 2.0  # how long a failing rank waits for its last words to be read


class World:
    """One process without MPI; also the interface of `MPIWorld`, whose docstrings it carries.

    Attributes:
        told: whether this very process has been told to stop; see `stopping` for the whole world.
    """

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def __init__(self):
        self.told = StopRequest()

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """This rank's GPU, or the CPU where there is none.

        Raises:
            RunError: more ranks than GPUs on a node.
        """
        import torch

        n_gpus = torch.cuda.device_count()
        if n_gpus == 0:
            return torch.device("cpu")
        # A launcher that masks GPUs per rank (--gpus-per-task) leaves exactly one visible.
        if n_gpus > 1 and self.local_size > n_gpus:
            raise RunError(f"{self.local_size} ranks on a node with {n_gpus} GPUs: start one rank per GPU")
        return torch.device("cuda", self.local_rank if n_gpus > 1 else 0)

    def use_threads(self, n: int) -> int:
        """Compute with n threads on this rank; 0 means this node's cores divided by its ranks. Returns the number."""
        import torch

        n = n or max(1, len(os.sched_getaffinity(0)) // self.local_size)
        torch.set_num_threads(n)
        return n

    def listen(self, grace_s: float) -> None:
        """From now on SIGUSR1, SIGUSR2 and SIGTERM ask the ranks to stop; any rank's signal is everyone's.

        Args:
            grace_s: how long what is in flight may take to end, in seconds; then every rank is ended where it is, with
                exit code 75.
        """

        def give_up(by):
            time.sleep(2.0 * self.rank / self.size)  # root speaks, where it can
            print(f"hpc_saidpo: {by}: not done after {grace_s:.0f} s, what is in flight is given up", file=sys.stderr)
            self.abort(EXIT_STOPPED)

        self.told.listen(grace_s, give_up)

    def stopping(self) -> str:
        """The signal by which any rank was told to stop; "" when none was. Collective."""
        return self.told.by

    def stop_if_told(self) -> None:
        """Collective.

        Raises:
            Stopped: a rank was told to stop; raised on every rank.
        """
        by = self.stopping()
        if by:
            raise Stopped(by)

    def claim(self, n: int, tick: Callable[[int], None] = lambda index: None) -> Iterator[int]:
        """Work items 0 .. n-1: each goes to exactly one rank, the next to whoever is free. Collective.

        `tick(index)` is called on root as each item is handed out.

        Raises:
            Stopped: a rank was told to stop while there were items left; the ranks have ended those they had begun.
        """
        for index in range(n):
            self.stop_if_told()
            tick(index)
            yield index

    def spread(self, n: int, do: Callable[[int], None], tick: Callable[[int], None] = lambda index: None) -> None:
        """do(index) for 0 .. n-1, each on one rank, as `claim` gives them, with `tick`. Collective.

        A failure on any rank is raised on every one, when all have ended what they had begun; of several failures that
        of the lowest index, whatever the ranks. (Items are given in rising order, so it is always met.)

        Raises:
            Stopped: as by `claim`.
        """
        failed = None
        for index in self.claim(n, tick):
            if failed is None:  # else the rest is taken only to be put away
                try:
                    do(index)
                except Exception as error:  # noqa: BLE001 - it is raised again, on every rank
                    failed = index, error
        self._raise_lowest(failed)

    def everywhere(self, function: Callable):
        """Run on every rank, and give its result; a failure is raised on every rank, that of the lowest. Collective."""
        value, failed = None, None
        try:
            value = function()
        except Exception as error:  # noqa: BLE001 - it is raised again, on every rank
            failed = self.rank, error
        self._raise_lowest(failed)
        return value

    def _raise_lowest(self, failed: tuple[int, Exception] | None) -> None:
        """Of every rank's failure, raise the one with the lowest number on every rank."""
        told = [item for item in self.gather(failed and (failed[0], in_words(failed[1], self.rank))) if item]
        if not told:
            return
        index, words = min(told)
        raise failed[1] if failed and failed[0] == index else from_words(words)

    def turns(self, n: int, tick: Callable[[int], None] = lambda index: None) -> Iterator[int]:
        """Like `claim`, for work that the ranks do together: all are given equally many items.

        In the last turn the last item goes to every rank that is left over.

        Raises:
            Stopped: a rank was told to stop; the ranks have ended the same turn.
        """
        for first in range(0, n, self.size):
            self.stop_if_told()
            for index in range(first, min(first + self.size, n)) if self.is_root else ():
                tick(index)
            yield min(first + self.rank, n - 1)

    def idle_shares(self) -> list[float]:
        """Of the last `claim`'s time, the share that each rank waited for an item or for the others to end. Collective.

        In rank order; one rank waits for nobody.
        """
        return [0.0]

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

    def describe(self) -> dict[str, str]:
        """Facts about MPI, for people: library, threads (what it permits), launcher (which protocol started us)."""
        return {"library": "none: one process", "threads": "", "launcher": ""}

    def all_reduce_rate(self, n_bytes: int, repeats: int = 5) -> tuple[str, float]:
        """(backend, bytes per second on each rank's wire) of a gradient sum: torch.distributed over the ranks' devices.

        The figure is nccl-tests' bus bandwidth, 2 (n - 1) / n · size / time: comparable for any number of ranks n. The
        median of `repeats`, after one to warm up. Collective.
        """
        return "none", math.inf

    def abort(self, code: int) -> None:
        """End every rank of the job at once; what was printed before is still read."""
        drain(sys.stdout, sys.stderr)
        os._exit(code)

    @contextlib.contextmanager
    def group(self):
        """A torch.distributed process group over the ranks, alive inside the context only. Collective."""
        yield


def in_words(error: Exception, rank: int) -> tuple[bool, str]:
    """A failure as it can travel to other ranks: an exception of any class may fail to."""
    is_mendable = isinstance(error, RunError)
    return is_mendable, str(error) if is_mendable else f"{type(error).__name__} on rank {rank}: {error}"


def from_words(told: tuple[bool, str]) -> Exception:
    """What another rank told by `in_words`."""
    is_mendable, message = told
    return RunError(message) if is_mendable else RuntimeError(message)


def drain(*streams: TextIO) -> None:
    """Flush, and wait until the other end of a pipe has read it: an abort makes a launcher drop what it has not."""
    deadline = time.monotonic() + _DRAIN_S
    for stream in streams:
        try:
            stream.flush()
            is_pipe = stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
            while is_pipe and _unread(stream.fileno()) and time.monotonic() < deadline:
                time.sleep(POLL_S)
        except (OSError, ValueError):  # closed, or no file at all
            continue


def _unread(handle: int) -> int:
    """Bytes in a pipe."""
    return struct.unpack("i", fcntl.ioctl(handle, termios.FIONREAD, bytes(4)))[0]
