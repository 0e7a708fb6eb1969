"""`World`: one process, and the interface that `MPIWorld` shares."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

import numpy as np

from ..errors import RunError, decode_failure, encode_failure
from . import cores, devices, idle
from .claims import Claims, OwnClaims
from .drain import drain
from .stop import CTRL_C, EXIT_STOPPED, Stopped, StopRequest
from .task import Task

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
POLL_S = 0.001  # pause between two polls of a waiting rank: it must not take the core from a rank that computes


class World:
    """One process without MPI. Also the interface of `MPIWorld`: the docstrings below hold for both.

    Attributes:
        hosts: name of the node of each rank.
        has_group: whether `group` makes a process group.
        stop_request: the request to this process to stop; see `stop_signal` for the whole world.
        node: number of the first rank on this rank's node.
    """

    rank, size, node, local_size = 0, 1, 0, 1
    has_group = False

    def __init__(self):
        self.hosts = [platform.node()]
        self.stop_request = StopRequest()
        self._device: torch.device | None = None
        self._counts: Counter[str] = Counter()
        self._work = idle.Work()

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    def name_of(self, rank: int) -> str:
        """Return a rank's number and host, for messages."""
        return f"rank {rank} on {self.hosts[rank]}"

    @property
    def device(self) -> torch.device:
        """This rank's device. Before a call of `use_device` the first use decides it, and is collective."""
        if self._device is None:
            self.use_device()
        return cast("torch.device", self._device)

    def use_device(self, requested: devices.Requested = "auto") -> str:
        """Choose the device of every rank. Return a description of this rank's device for the log. Collective.

        Args:
            requested: run.device. auto: a GPU for each rank; the CPU if no rank sees a GPU.

        Raises:
            RunError: for each reason in `devices.assign`.
        """
        import torch

        sight = devices.Sight(self.rank, "", self.node) if requested == "cpu" else devices.look(self.rank, self.node)
        try:
            index = devices.assign(self.gather(sight), requested)[self.rank]
        except devices.Unusable as error:
            raise RunError(str(error)) from None
        self._device = torch.device("cpu") if index is None else torch.device("cuda", index)
        return f"{self._device} ({sight.obstacle})" if sight.obstacle else str(self._device)

    def use_threads(self, n: int) -> int:
        """Compute with n threads on this rank; 0: as `cores.n_threads` decides. Return the number. Collective."""
        import torch

        everyones = self.gather((self.node, sorted(os.sched_getaffinity(0))))
        n = n or cores.n_threads([mask for node, mask in everyones if node == self.node])
        torch.set_num_threads(n)
        return n

    def listen(self, grace_s: float | None, announce: Callable[[str], None] = lambda message: None) -> None:
        """Let SIGUSR1, SIGUSR2, SIGTERM and Ctrl-C request a stop of all ranks from now on. One rank is enough.

        Args:
            grace_s: time for the work in flight to finish, in seconds. After it, or after a second Ctrl-C, every rank
                ends at once, with exit code 75. None: no work has begun yet, and every rank ends at once.
            announce: called at once on root, if root has received the signal, with a message about what happens now.
        """
        begun = time.monotonic()

        def say(signal_name: str) -> None:
            nonlocal begun
            begun = time.monotonic()
            again = "; press Ctrl-C again to stop now" * (signal_name == CTRL_C)
            if grace_s is not None and self.is_root:
                announce(
                    f"{signal_name}: ending the work in flight, which takes at most {grace_s:.0f} s{again}. All "
                    "finished work is stored; the same command goes on from there"
                )

        def give_up(signal_name: str) -> None:
            outcome = "during the start: the same command starts again"
            if grace_s is not None:
                seconds = min(time.monotonic() - begun, grace_s)
                outcome = f"not done after {seconds:.0f} s, the work in flight is given up; the same command goes on"
            time.sleep(2.0 * self.rank / self.size)  # root prints first, if it can
            print(f"hpc_saidpo: {signal_name}: {outcome}", file=sys.stderr)
            self.abort(EXIT_STOPPED)

        self.stop_request.listen(grace_s or 0.0, give_up, say)

    def stop_signal(self) -> str:
        """Return the signal that requested a stop on any rank, "" if there was none. Collective."""
        return self.stop_request.signal_name

    def stop_if_requested(self) -> None:
        """Stop if a rank has received a request to stop. Collective.

        Raises:
            Stopped: there was a request; raised on every rank.
        """
        signal_name = self.stop_signal()
        if signal_name:
            raise Stopped(signal_name)

    def count(self, **counts: float) -> None:
        """Count results of this rank's present item of a `claim`. Root adds them to the task when the item is done."""
        self._counts.update(counts)

    def take_counts(self) -> dict[str, float]:
        """Return what this rank has counted since the last call."""
        counts, self._counts = self._counts, Counter()
        return dict(counts)

    def claim(self, n: int, task: Task | None = None) -> Iterator[int]:
        """Yield work items of 0 .. n-1: each goes to exactly one rank, the next one to a free rank. Collective.

        Args:
            task: on root the beginning and end of each item on any rank are noted there.

        Raises:
            Stopped: a stop was requested while items were left. The ranks have finished the items they had begun.
        """
        claims = self.claims(n, task)
        while (index := claims.next()) is not None:
            yield index
            claims.end(index, self.take_counts())
        claims.close()

    def claims(self, n: int, task: Task | None = None) -> Claims:
        """Begin to hand out items 0 .. n-1, as `claim` does, to a rank that may have several at once. Collective.

        Args:
            task: see `claim`.
        """
        self._work = idle.Work()
        return OwnClaims(range(n), task or Task(), self._work, self)

    def spread(self, n: int, do: Callable[[int], object], task: Task | None = None) -> None:
        """Call do(index) for 0 .. n-1, each on one rank, in the order of `claim`. Collective.

        A failure on any rank is raised on every rank, after all ranks have finished the items they had begun. Of
        several failures the one with the lowest index is raised, for any number of ranks. (Items are handed out in
        ascending order, so that failure always occurs.)

        Args:
            task: see `claim`.

        Raises:
            Stopped: as by `claim`.
        """
        failure = None
        for index in self.claim(n, task):
            if failure is None:  # else the remaining items are claimed only to end the loop
                try:
                    do(index)
                except Exception as error:  # noqa: BLE001 - it is raised again, on every rank
                    failure = index, error
        self._raise_lowest(failure)

    def everywhere(self, function: Callable[[], T]) -> T:
        """Call a function on every rank and return its result. Collective.

        A failure is raised on every rank: that of the lowest rank.
        """
        value, failure = None, None
        try:
            value = function()
        except Exception as error:  # noqa: BLE001 - it is raised again, on every rank
            failure = self.rank, error
        self._raise_lowest(failure)
        return cast(T, value)

    def _raise_lowest(self, failure: tuple[int, Exception] | None) -> None:
        """Raise the failure with the lowest number on every rank, if any rank has one."""
        encoded = failure and (failure[0], encode_failure(failure[1], self.rank, self.name_of(self.rank)))
        messages = list(filter(None, self.gather(encoded)))
        if not messages:
            return
        index, message = min(messages)
        raise decode_failure(message, failure[1] if failure and failure[0] == index else None)

    def take_turns(self, n: int, task: Task | None = None) -> Iterator[int]:
        """Yield work items as `claim` does, for collective work: every rank receives the same number of items.

        In the last turn the ranks that are left over all receive the last item.

        Raises:
            Stopped: a stop was requested. The ranks have finished the same turn.
        """
        task = task or Task()
        for first in range(0, n, self.size):
            self.stop_if_requested()
            turn = range(min(self.size, n - first))
            for rank in turn:
                task.begin(rank, first + rank)
            yield min(first + self.rank, n - 1)
            for rank in turn:
                task.end(rank, first + rank)

    def idle_shares(self) -> list[float]:
        """Return the share of the last `claim`'s time that each rank waited for an item or for the others. Collective.

        In rank order. A single rank never waits.
        """
        return [0.0]

    def barrier(self) -> None:
        """Wait for every rank. A waiting rank sleeps and does not spin."""

    def bcast(self, value: T) -> T:
        """Return root's value on every rank. Collective."""
        return value

    def gather(self, value: T) -> list[T]:
        """Return every rank's value, in rank order, on every rank. Collective."""
        return [value]

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Return the elementwise sum over the ranks, on every rank. Collective."""
        return np.asarray(array)

    def on_root(self, function: Callable[[], T]) -> T:
        """Call a function on root. Return its result, or raise its failure, on every rank. Collective."""
        return function()

    def kept_on_root(self, function: Callable[[], T]) -> T | None:
        """Call a function on root. Return its result there and None on the other ranks. Collective.

        For values of the size of a pool: the other ranks need no memory for them. A failure is raised on every rank.
        """
        values: list[T] = []
        self.on_root(lambda: values.append(function()))
        return values[0] if values else None

    def describe(self) -> dict[str, str]:
        """Return facts about MPI: library, threads (the permitted level), launcher (the variables of its protocol)."""
        return {"library": "none: one process", "threads": "", "launcher": ""}

    def all_reduce_rate(self, n_bytes: int, repeats: int = 5) -> tuple[str, float]:
        """Measure a gradient sum over the ranks' devices. Return the torch.distributed backend and bytes/s. Collective.

        The rate is the bus bandwidth of nccl-tests, 2 (n - 1) / n · size / time: comparable for any number of ranks n.
        It is the median of `repeats` measurements after one for warm-up.
        """
        return "none", math.inf

    def leave(self, code: int, within_s: float = math.inf) -> None:
        """End this process with an exit code if every rank comes here. Return if they do not come in time.

        MPI is ended before: a launcher reports no abort, whatever the code. A call after this one may only be `abort`.

        Args:
            within_s: how long to wait for the other ranks, in seconds.
        """
        sys.exit(code)

    def abort(self, code: int) -> NoReturn:
        """End every rank of the job at once. Earlier output still reaches its readers."""
        drain(sys.stdout, sys.stderr)
        os._exit(code)

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        """A torch.distributed process group over the ranks, for the time of the context. Collective."""
        yield
