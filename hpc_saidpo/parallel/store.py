"""The store through which torch's ranks find each other, over MPI: no port for it is open, and no name is looked up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from .dispatch import STORE_TAG, Progress
from .world import POLL_S

_PAUSE_MAX_S = 0.05  # longest pause between two looks at a key that is not there yet


class Entries:
    """The keys and values of a store, in root's memory. Several threads may call `do`."""

    def __init__(self):
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def do(self, operation: str, *arguments: Any) -> Any:
        """Do one operation, the name of a method of `Store`, and return its result. None of them waits."""
        known: dict[str, Callable[..., Any]] = {
            "set": self._values.__setitem__,
            "get": self._values.get,
            "add": self._add,
            "append": self._append,
            "compare_set": self._compare_set,
            "deleteKey": lambda key: self._values.pop(key, None) is not None,
            "check": lambda keys: all(key in self._values for key in keys),
            "getNumKeys": lambda: len(self._values),
        }
        with self._lock:
            return known[operation](*arguments)

    def _add(self, key: str, amount: int) -> int:
        total = int(self._values.get(key, b"0")) + amount
        self._values[key] = str(total).encode()
        return total

    def _append(self, key: str, value: bytes) -> None:
        self._values[key] = self._values.get(key, b"") + value

    def _compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        present = self._values.get(key)
        if present == expected or (present is None and not expected):
            self._values[key] = present = desired
        return expected if present is None else present


class MPIStore(torch.distributed.Store):  # pyright: ignore[reportPrivateImportUsage] - public, but without __all__
    """torch.distributed's Store: root keeps the entries, and the other ranks ask it over MPI. One at a time.

    Args:
        progress: the thread in which root answers.
        timeout: how long `get` and `wait` wait for a key.
    """

    def __init__(self, progress: Progress, rank: int, root: str, timeout: timedelta):
        super().__init__()
        self._progress, self._is_root, self._root, self._timeout = progress, rank == 0, root, timeout
        self._entries, self._lock = Entries(), threading.Lock()
        if self._is_root:
            progress.answer(STORE_TAG, lambda _, request: self._entries.do(*request))

    def close(self) -> None:
        """End the service on root. No rank may ask any more."""
        self._progress.ignore(STORE_TAG)

    def _do(self, *request: Any) -> Any:
        if self._is_root:
            return self._entries.do(*request)
        with self._lock:
            return self._progress.request(STORE_TAG, request, self._root)

    def _wait_until(self, is_there: Callable[[], bool], keys: list[str], timeout: timedelta) -> None:
        deadline, pause_s = time.monotonic() + timeout.total_seconds(), POLL_S
        while not is_there():
            if time.monotonic() > deadline:
                raise torch.distributed.DistStoreError(  # pyright: ignore[reportPrivateImportUsage] - as above
                    f"no rank has set {', '.join(keys)} within {timeout.total_seconds():.0f} s"
                )
            time.sleep(pause_s)
            pause_s = min(_PAUSE_MAX_S, 1.5 * pause_s)

    # The names of the methods are torch's.

    def set(self, key: str, value: bytes) -> None:
        self._do("set", key, bytes(value))

    def get(self, key: str) -> bytes:
        found: list[bytes] = []

        def look() -> bool:
            value = self._do("get", key)
            found.extend([] if value is None else [value])
            return bool(found)

        self._wait_until(look, [key], self._timeout)
        return found[0]

    def add(self, key: str, amount: int) -> int:
        return self._do("add", key, amount)

    def append(self, key: str, value: bytes) -> None:
        self._do("append", key, bytes(value))

    def compare_set(self, key: str, expected: bytes, desired: bytes) -> bytes:
        return self._do("compare_set", key, bytes(expected), bytes(desired))

    def deleteKey(self, key: str) -> bool:
        return self._do("deleteKey", key)

    def check(self, keys: list[str]) -> bool:
        return self._do("check", keys)

    def getNumKeys(self) -> int:
        return self._do("getNumKeys")

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        self._wait_until(lambda: self.check(keys), keys, timeout or self._timeout)

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.get(key) for key in keys]

    def multi_set(self, keys: list[str], values: list[bytes]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.set(key, value)

    def has_extended_api(self) -> bool:
        return True

    def clone(self) -> MPIStore:
        return self
