"""One job at a time in a run folder, or at an artefact of several runs: a lock file that outlives no dead owner.

The lock works on any shared file system: exactly one process can create the file, and its owner touches it every few
seconds. On the owner's own machine death is seen at once (the process is gone); a requeued
Slurm job knows that its former self is; from elsewhere a lock that is no longer touched counts as a dead owner's.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from pathlib import Path

from ..errors import RunError
from .files import disk_errors

BEAT_S = 10.0
DEAD_AFTER_S = 120.0  # NFS may show another node's touch up to a minute late
# Who holds a lock that has no content yet: it is being written, or its writer died before it could.
_NAMELESS = {"token": "", "host": "unknown", "pid": 0, "slurm_job": "", "since": "this moment", "machine": ""}


class Lock:
    """The lock of one folder. Not collective: root only.

    Args:
        path: the lock file.
        what: it guards, in words; not given, the run folder that it lies in.
        beat_s: how often its owner touches it, in seconds.
        dead_after_s: how long it must lie untouched before an owner on another machine counts as dead, in seconds.
    """

    def __init__(self, path: Path, beat_s: float = BEAT_S, dead_after_s: float = DEAD_AFTER_S, what: str = ""):
        self.path, self.beat_s, self.dead_after_s = path, beat_s, dead_after_s
        self.what = what or f"run folder {path.parent}"
        self.owner = _myself()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, waiting=lambda message: None) -> None:
        """Take the lock, from a dead owner too.

        Args:
            waiting: told once, in words, when it must be found out whether an owner elsewhere lives.

        Raises:
            RunError: a living job holds it; names its host, pid and Slurm job.
        """
        holder = self.take(waiting)
        if holder:
            raise RunError(
                f"{holder}: two jobs may not write one run. Wait for it, stop it, or choose another run.name"
            )

    def take(self, waiting=lambda message: None) -> str:
        """Like `acquire`; gives the living job that holds it, in words, or "" when it is ours now."""
        while not self._create():
            owner = _read(self.path)
            if owner is None:  # released this moment
                continue
            if _lives(owner) is None:
                waiting(f"{self._described(owner)}; looking for {self.dead_after_s:.0f} s whether it lives")
            if self._owner_lives(owner):
                return self._described(owner)
            self._remove(owner)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return ""

    def check(self) -> None:
        """Make sure that the lock is still ours.

        Raises:
            RunError: another job took it, because this one was suspended for too long.
        """
        owner = _read(self.path)
        if owner is None or owner["token"] != self.owner["token"]:
            other = self._described(owner) if owner else f"{self.path} is gone"
            raise RunError(f"this job lost its lock: {other}. It was suspended for too long, or the lock removed")

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        owner = _read(self.path)
        if owner is not None and owner["token"] == self.owner["token"]:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Create the lock; False when there is one."""
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

    def _owner_lives(self, owner: dict) -> bool:
        known = _lives(owner)
        if known is not None:
            return known
        touched = _touched(self.path)
        deadline = time.monotonic() + self.dead_after_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self.beat_s / 2))
            if _read(self.path) != owner:
                return False  # released, or taken by another: `acquire` looks again
            if _touched(self.path) != touched:
                return True
        return False

    def _remove(self, dead: dict) -> None:
        """Remove a dead owner's lock; one that another job has taken meanwhile is put back."""
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

    def _beat(self):
        while not self._ended.wait(self.beat_s):
            try:
                os.utime(self.path)
            except OSError:  # gone, or a file system that hangs: `check` tells
                continue

    def _described(self, owner: dict) -> str:
        job = f", Slurm job {owner['slurm_job']}" if owner["slurm_job"] else ""
        return (
            f"{self.what} is in use by another job: host {owner['host']}, pid {owner['pid']}{job}, "
            f"since {owner['since']} ({self.path})"
        )


def _myself() -> dict:
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


def _lives(owner: dict) -> bool | None:
    """Whether the owner lives; None where that cannot be known from here."""
    if owner["machine"] and owner["machine"] == _machine():
        return _process_start(owner["pid"]) == owner["process_start"]
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if owner["slurm_job"] and owner["slurm_job"] == _slurm_job() and restart > owner["slurm_restart"]:
        return False  # this job's former self: Slurm requeues no job that runs
    return None


def _slurm_job() -> str:
    array = [os.environ.get(f"SLURM_ARRAY_{part}_ID", "") for part in ("JOB", "TASK")]
    return "_".join(array) if all(array) else os.environ.get("SLURM_JOB_ID", "")


def _machine() -> str:
    """What a pid means something in: this boot of this kernel and this pid namespace; "" where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process."""
    try:
        # "pid (name) state ppid ...": the name may hold anything, what follows it does not
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if after_name[0] in "ZX" else int(after_name[19])
    except OSError:
        return None


def _read(path: Path) -> dict | None:
    """The lock's content; None when there is no lock."""
    try:
        return json.loads(path.read_text() or json.dumps(_NAMELESS))
    except FileNotFoundError:
        return None
    except ValueError:
        raise RunError(
            f"{path} is no lock of this program: see whether a job uses the folder, then remove it"
        ) from None


def _touched(path: Path) -> int:
    try:
        with open(path, "rb") as file:  # opening makes NFS ask the server
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return -1
