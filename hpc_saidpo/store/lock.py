"""A lock file: one job at a time writes a run folder, or an artefact of several runs. A dead owner does not block it.

The lock works on any shared file system: exactly one process can create the file, and its owner touches it every few
seconds. On the same machine a dead owner is recognised at once: there is no process with its pid and start time. A
requeued Slurm job recognises the lock of its earlier start. On other machines an owner counts as dead when it no longer
touches the lock.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import RunError
from .files import disk_errors

BEAT_S = 10.0
DEAD_AFTER_S = 120.0  # NFS may show the touch of another node up to a minute late
# Owner of a lock file without content: its writer is about to write it, or died before.
_UNKNOWN_OWNER = {"token": "", "host": "unknown", "pid": 0, "slurm_job": "", "since": "this moment", "machine": ""}


def _ignore(message: str) -> None:
    """Report nothing."""


class Lock:
    """The lock of one folder. Not collective: root only.

    Args:
        path: the lock file.
        guarded: name of the locked object for messages; by default the run folder that contains the lock file.
        beat_s: time between two touches of the owner, in seconds.
        dead_after_s: time without a touch after which an owner on another machine counts as dead, in seconds.
    """

    def __init__(self, path: Path, beat_s: float = BEAT_S, dead_after_s: float = DEAD_AFTER_S, guarded: str = ""):
        self.path, self.beat_s, self.dead_after_s = path, beat_s, dead_after_s
        self.guarded = guarded or f"run folder {path.parent}"
        self.owner = _this_process()
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
        while not self._create():
            owner = _read(self.path)
            if owner is None:  # released this moment
                continue
            if _is_alive(owner) is None:
                report(
                    f"{self._describe(owner)}; waiting up to {self.dead_after_s:.0f} s for a sign of life of that job"
                )
            if self._owner_is_alive(owner):
                return self._describe(owner)
            self._remove(owner)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return ""

    def check(self) -> None:
        """Make sure that this job still holds the lock.

        Raises:
            RunError: another job has replaced it, because this one was suspended for too long.
        """
        owner = _read(self.path)
        if owner is None or owner["token"] != self.owner["token"]:
            other = self._describe(owner) if owner else f"{self.path} is gone"
            raise RunError(f"this job lost its lock: {other}. It was suspended for too long, or the lock removed")

    def release(self) -> None:
        """Remove the lock if this job holds it."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        owner = _read(self.path)
        if owner is not None and owner["token"] == self.owner["token"]:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Create the lock file; False if it exists."""
        with disk_errors(self.path):
            try:
                handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            try:
                os.write(handle, json.dumps(self.owner, indent=1).encode())
                os.fsync(handle)
            except OSError:
                self.path.unlink()
                raise
            finally:
                os.close(handle)
        return True

    def _owner_is_alive(self, owner: dict[str, Any]) -> bool:
        alive = _is_alive(owner)
        if alive is not None:
            return alive
        touched = _touched(self.path)
        deadline = time.monotonic() + self.dead_after_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self.beat_s / 2))
            if _read(self.path) != owner:
                return False  # released or replaced: `try_acquire` reads it again
            if _touched(self.path) != touched:
                return True
        return False

    def _remove(self, dead: dict[str, Any]) -> None:
        """Remove a dead owner's lock. If another job has replaced it meanwhile, put that lock back."""
        if _read(self.path) != dead:
            return
        grabbed = self.path.with_name(f".{self.path.name}.{self.owner['token']}.dead.tmp")
        try:
            os.rename(self.path, grabbed)
        except FileNotFoundError:
            return
        if _read(grabbed) == dead:
            grabbed.unlink()
        else:
            os.rename(grabbed, self.path)

    def _beat(self) -> None:
        while not self._ended.wait(self.beat_s):
            try:
                os.utime(self.path)
            except OSError:  # removed, or a file system that hangs: `check` reports it
                continue

    def _describe(self, owner: dict[str, Any]) -> str:
        job = f", Slurm job {owner['slurm_job']}" if owner["slurm_job"] else ""
        return (
            f"{self.guarded} is in use by another job: host {owner['host']}, pid {owner['pid']}{job}, "
            f"since {owner['since']} ({self.path})"
        )


def _this_process() -> dict[str, Any]:
    return {
        "token": uuid.uuid4().hex,
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "slurm_job": _slurm_job(),
        "slurm_restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": _machine(),
        "process_start": _process_start(os.getpid()),
    }


def _is_alive(owner: dict[str, Any]) -> bool | None:
    """Whether the owner is alive; None if this machine cannot decide it."""
    if owner["machine"] and owner["machine"] == _machine():
        return _process_start(owner["pid"]) == owner["process_start"]
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if owner["slurm_job"] and owner["slurm_job"] == _slurm_job() and restart > owner["slurm_restart"]:
        return False  # an earlier start of this job: Slurm does not requeue a running job
    return None


def _slurm_job() -> str:
    array = [os.environ.get(f"SLURM_ARRAY_{part}_ID", "") for part in ("JOB", "TASK")]
    return "_".join(array) if all(array) else os.environ.get("SLURM_JOB_ID", "")


def _machine() -> str:
    """Return the place in which a pid is unique: boot of the kernel and pid namespace; "" without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_start(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot; None if there is no such process.

    Together with the pid it identifies a process: no pid is used twice in one clock tick.
    """
    try:
        # "pid (name) state ppid ...": only the name may contain spaces and parentheses
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if after_name[0] in "ZX" else int(after_name[19])
    except OSError:
        return None


def _read(path: Path) -> dict[str, Any] | None:
    """Return the lock's content; None if there is no lock."""
    try:
        return json.loads(path.read_text() or json.dumps(_UNKNOWN_OWNER))
    except FileNotFoundError:
        return None
    except ValueError:
        raise RunError(
            f"{path} is no lock of this program: make sure that no job uses the folder, then remove the file"
        ) from None


def _touched(path: Path) -> int:
    """Return the time of the last touch in nanoseconds; -1 if there is no lock."""
    try:
        with open(path, "rb") as file:  # on NFS, open requests the present state from the server
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return -1
