"""Failures of the file system: one that passes is waited for, the others become plain messages with a remedy."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..errors import RunError, TryAgain, errno_of, is_transient, shown, try_again

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, *19 * (15.0,))  # five minutes: a file server restarts in that time
VISIBLE_AFTER_S = 60.0  # longest delay until a file is visible on another node of a network file system
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space",
    errno.EDQUOT: "your quota is used up: free space or files",
    errno.EFBIG: "a limit on file sizes is in force: raise it (ulimit -f)",
    errno.EROFS: "the file system is read-only: have it mounted writable, or choose another run.root",
    errno.EACCES: "permission is denied: make the folder writable, or choose another run.root",
    errno.EPERM: "permission is denied: make the folder writable, or choose another run.root",
    errno.ENOENT: "the file system refuses new folders there: choose another run.root",
}
_log = logging.getLogger("hpc_saidpo")  # that of `progress`
T = TypeVar("T")


def persist(path: Path, operation: Callable[[], T]) -> T:
    """Call an operation on a file. While the file system fails in a way that passes, call it again after a pause.

    Every access of the store to the disk goes through here. Ranks may call it together with a collective operation
    whose failure is raised on every rank: they make the same number of attempts.

    Args:
        path: the file, for messages.
        operation: may be called several times, also after it has done its work and failed at the end. It does not call
            `persist` itself.

    Raises:
        TryAgain: it has failed in such a way after every pause.
    """
    for pause_s in PAUSES_S:
        try:
            return operation()
        except Exception as error:
            if not (is_transient(error) or isinstance(error, TryAgain)):
                raise
            _log.warning("%s: %s: trying again in %.1f s", path, _words(error), pause_s)
        time.sleep(pause_s)
    try:
        return operation()
    except Exception as error:
        if not is_transient(error):
            raise
        raise try_again(f"{shown(path)}: {_words(error)}, for {sum(PAUSES_S):.0f} s") from error


def _words(error: Exception) -> str:
    code = errno_of(error)
    return os.strerror(code) if code else str(error)


def write(path: Path, operation: Callable[[], T], may_be_missing: bool = True) -> T:
    """Call an operation that writes, as `persist` does.

    Args:
        may_be_missing: FileNotFoundError is the caller's to handle; False: it is a failure of the disk.

    Raises:
        TryAgain: as `persist`.
        RunError: the disk refuses the write.
    """
    with disk_errors(path, may_be_missing):
        return persist(path, operation)


def exists(path: Path) -> bool:
    """Whether there is a file or folder, behind links too. A silent disk is no answer: see `persist`."""

    def look() -> bool:
        try:
            os.stat(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # the last: links that lead to each other
                return False
            raise
        return True

    return persist(path, look)


def names_in(folder: Path) -> list[str]:
    """Return the names of the files and folders in a folder, sorted; [] if there is no such folder."""

    def look() -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    return persist(folder, look)


def wait_for(path: Path) -> None:
    """Wait for the file of another node, which a network file system may show late. A missing file is no error here."""
    deadline = time.monotonic() + VISIBLE_AFTER_S
    while not exists(path) and time.monotonic() < deadline:
        time.sleep(0.2)


@contextmanager
def disk_errors(path: Path, may_be_missing: bool = True) -> Iterator[None]:
    """Turn a failure of the disk into a RunError that names the cause, the path and the remedy. Other errors pass.

    Args:
        may_be_missing: FileNotFoundError is the caller's to handle; False: it is a failure of the disk.
    """
    try:
        yield
    except Exception as error:
        code = errno_of(error)
        if code is None or (may_be_missing and isinstance(error, FileNotFoundError)):
            raise
        if is_transient(error):
            raise try_again(f"cannot write {shown(path)}: {os.strerror(code)}") from error
        raise RunError(
            f"cannot write {shown(path)}: {describe(code, path)}, then start the same command again. "
            "Everything that was finished is kept"
        ) from error


def describe(code: int, path: Path) -> str:
    """Return the cause of a refused write, the free space there, and the remedy."""
    cause, remedy, free = os.strerror(code), _REMEDIES.get(code, "repair the file system"), "free space unknown"
    try:
        place = next(p for p in path.parents if p.exists())
        free = f"{shutil.disk_usage(place).free / 2**20:,.1f} MiB free there"
        counts = os.statvfs(place)
        if code == errno.ENOSPC and counts.f_files and not counts.f_ffree:
            cause = f"all {counts.f_files:,} inodes of the file system are used up"
            remedy = "it can hold no more files: remove files, or choose another run.root"
    except OSError:
        pass
    return f"{cause} ({free}): {remedy}"
