"""A lock file: one job at a time writes a run folder, or an artefact of several runs. A dead owner does not block it.

The lock works on any shared file system. It is created with its content in one step, which exactly one process can do.
Its owner touches it every few seconds. Every change of an existing lock (replacement, removal) is made under a second
lock, the guard, so a process never replaces or removes another lock than the one that it has examined. The guard is
held for a few operations of the file system; the guard of a dead process is replaced in the same way.

On the same machine a dead owner is recognised at once: there is no process with its pid and start time. A requeued
Slurm job recognises the lock of its earlier start. On other machines an owner counts as dead after many looks in a row
at an untouched lock, each of them quick: while the file system stalls, the owner cannot touch the lock.
"""

from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import RunError, shown
from ..reading import open_file, parse_json, read_text
from . import disk, temporaries
from .owner import UNKNOWN, is_alive, is_owner, this_process

BEAT_S = 10.0
DEAD_AFTER_S = 120.0  # NFS may show the touch of another node up to a minute late
LOOK_EVERY_S = 1.0  # pause between two looks at the lock of an owner on another machine
_GUARD_POLL_S = 0.01
_LOOKS_BEFORE_LOST = 3  # a lock that is being replaced on another node may be invisible for a moment
_MOST_BYTES = 65_536  # of a lock
_WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # of a file system that has no hard links


def _ignore(message: str) -> None:
    """Report nothing."""


class Lock:
    """The lock of one folder. Not collective: root only.

    Args:
        path: the lock file.
        beat_s: time between two touches of the owner, in seconds.
        dead_after_s: duration of the quick looks at an untouched lock after which an owner on another machine counts
            as dead, in seconds.
        guarded: name of the locked object for messages; by default the run folder that contains the lock file.
        owner: facts about the owner (`owner.this_process`); by default this process.
    """

    def __init__(
        self,
        path: Path,
        beat_s: float = BEAT_S,
        dead_after_s: float = DEAD_AFTER_S,
        guarded: str = "",
        owner: dict[str, Any] | None = None,
    ):
        self.path, self.beat_s, self.dead_after_s = path, beat_s, dead_after_s
        self.guarded = guarded or f"run folder {path.parent}"
        self.owner = owner or this_process()
        end = ".lock" if path.suffix == ".lock" else ""  # the guard of such a lock ends in this way, too
        stem = path.name.removesuffix(end)
        self._guard = path.with_name(f"{stem}.guard{end}")
        self._temporary = temporaries.beside(path)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, report: Callable[[str], None] = _ignore) -> None:
        """Acquire the lock. The lock of a dead owner is replaced.

        Args:
            report: called with a message before a wait for a sign of life of an owner on another machine.

        Raises:
            RunError: a living job holds the lock. Names its host, pid and Slurm job.
        """
        holder = self.try_acquire(report)
        if holder:
            raise RunError(
                f"{holder}: two jobs may not write one run. Wait for it, stop it, or choose another run.name"
            )

    def try_acquire(self, report: Callable[[str], None] = _ignore) -> str:
        """Acquire the lock as `acquire` does. Return "", or a description of the living job that holds the lock."""
        holder = disk.write(self.path, lambda: self._try(report))
        if not holder:
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
        return holder

    def check(self) -> None:
        """Make sure that this job still holds the lock.

        Raises:
            RunError: another job has replaced it, because this one was suspended for too long.
        """
        owner = None
        for look in range(_LOOKS_BEFORE_LOST):
            time.sleep(LOOK_EVERY_S * bool(look))
            owner = disk.persist(self.path, lambda: _read(self.path))
            if owner is not None:
                break
        if owner is None or owner["token"] != self.owner["token"]:
            other = self._describe(owner) if owner else f"{self.path} is gone"
            raise RunError(f"this job lost its lock: {other}. It was suspended for too long, or the lock removed")

    def release(self) -> None:
        """Remove the lock if this job holds it. If the file system fails, the lock stays, as that of a dead owner."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if self._is_own():
                self._under_guard(self._remove_own)
        except (OSError, RunError):
            return

    def _try(self, report: Callable[[str], None] = _ignore) -> str:
        """Acquire the lock, without touching it from then on. May be called again after an error of the file system."""
        while True:
            owner = _read(self.path)
            if owner is None:
                self._create()  # or another process creates it: the next look shows whose it is
                continue
            if owner["token"] == self.owner["token"]:
                return ""
            if is_alive(owner) is None:
                report(
                    f"{self._describe(owner)}; waiting up to {self.dead_after_s:.0f} s for a sign of life of that job"
                )
            if self._owner_is_alive(owner):
                return self._describe(owner)
            if holder := self._under_guard(lambda dead=owner: self._replace(dead)):
                return holder

    def _create(self) -> None:
        """Create the lock file with its content in one step, unless it exists."""
        try:
            self._write_temporary()
            os.link(self._temporary, self.path)
        except FileExistsError:
            return
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise
            return  # a new owner of the folder has removed the temporary file
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            self._create_in_place()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _create_in_place(self) -> None:
        """Create the lock file and then write its content, on a file system without hard links."""
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return
        try:
            os.write(handle, self._content())
            os.fsync(handle)
        finally:
            os.close(handle)

    def _replace(self, dead: dict[str, Any]) -> None:
        """Replace a dead owner's lock in one step, unless another process has done so. Under the guard only."""
        self._write_temporary()
        try:
            if _read(self.path) == dead:
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _remove_own(self) -> None:
        """Remove the lock file if it is this process's. Under the guard only, or as the guard."""
        if self._is_own():
            self.path.unlink(missing_ok=True)

    def _under_guard(self, change: Callable[[], None]) -> str:
        """Call `change` while this process holds the guard, for which it waits.

        Returns:
            "", or a description of the living job that has held the guard for too long; then nothing was changed.
        """
        guard = Lock(self._guard, self.beat_s, self.dead_after_s, self.guarded, self.owner)
        deadline = time.monotonic() + self.dead_after_s
        while holder := guard._try():
            if time.monotonic() > deadline:
                return holder
            time.sleep(_GUARD_POLL_S)
        try:
            change()
        finally:
            guard._remove_own()
        return ""

    def _owner_is_alive(self, owner: dict[str, Any]) -> bool:
        """Whether the owner is alive. On another machine: whether it touches the lock.

        A look that takes as long as the time between two touches shows that the file system stalls. Then the owner
        cannot touch the lock, and the looks are counted from the beginning.
        """
        alive = is_alive(owner)
        if alive is not None:
            return alive
        pause_s = min(LOOK_EVERY_S, self.beat_s / 2)
        touched, n_looks = _touched(self.path), 0
        while n_looks < math.ceil(self.dead_after_s / pause_s):
            time.sleep(pause_s)
            started = time.monotonic()
            if _read(self.path) != owner:
                return False  # released or replaced: `_try` reads it again
            if _touched(self.path) != touched:
                return True
            n_looks = n_looks + 1 if time.monotonic() - started < self.beat_s else 0
        return False

    def _beat(self) -> None:
        while not self._ended.wait(self.beat_s):
            try:
                owner = _read(self.path)
                if owner is not None and owner["token"] != self.owner["token"]:
                    return  # another job has replaced the lock: `check` reports it
                os.utime(self.path, follow_symlinks=False)
            except (OSError, RunError):  # removed, or a file system that hangs: `check` reports it
                continue

    def _is_own(self) -> bool:
        owner = _read(self.path)
        return owner is not None and owner["token"] == self.owner["token"]

    def _write_temporary(self) -> None:
        self._temporary.unlink(missing_ok=True)  # of an attempt that failed
        with open(temporaries.create(self._temporary), "wb") as file:
            file.write(self._content())
            file.flush()
            os.fsync(file.fileno())

    def _content(self) -> bytes:
        return json.dumps(self.owner, indent=1).encode()

    def _describe(self, owner: dict[str, Any]) -> str:
        job = f", Slurm job {owner['slurm_job']}" if owner["slurm_job"] else ""
        return (
            f"{self.guarded} is in use by another job: host {owner['host']}, pid {owner['pid']}{job}, "
            f"since {owner['since']} ({self.path})"
        )


def _read(path: Path) -> dict[str, Any] | None:
    """Return the lock's content; None if there is no lock, or it is being replaced."""
    try:
        text = read_text(path, _MOST_BYTES, follow=False)
        owner = parse_json(text) if text else UNKNOWN
        if owner is not UNKNOWN and not is_owner(owner):
            raise ValueError("it lacks facts about an owner")
        return owner
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: the file was replaced or removed while it was opened
            return None
        raise
    except ValueError as error:
        raise RunError(
            f"{shown(path)} is no lock of this program ({error}): make sure that no job uses the folder, then "
            "remove the file"
        ) from None


def _touched(path: Path) -> int:
    """Return the time of the last touch in nanoseconds; -1 if there is no lock."""
    try:
        handle = open_file(path, follow=False)  # on NFS, open requests the present state from the server
        try:
            return os.fstat(handle).st_mtime_ns
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return -1
        raise
    except ValueError:  # something else has this name now: `_read` reports it
        return -1
