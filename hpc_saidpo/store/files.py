"""Atomic and durable writes: a file appears complete or not at all. Failures of the disk become plain messages."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yaml import YAMLError

from ..errors import RunError
from ..parallel.world import World

_TEMPORARY = re.compile(r"\..+\.tmp")
_OS_ERROR = re.compile(r"os error (\d+)")  # the form in which safetensors, written in Rust, reports its errno
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space",
    errno.EDQUOT: "your quota is used up: free space or files",
    errno.EFBIG: "a limit on file sizes is in force: raise it (ulimit -f)",
    errno.EROFS: "the file system is read-only: have it mounted writable, or choose another run.root",
    errno.EACCES: "permission is denied: make the folder writable, or choose another run.root",
    errno.EPERM: "permission is denied: make the folder writable, or choose another run.root",
    errno.ENOENT: "the file system refuses new folders there: choose another run.root",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. On success its file is on disk (fsync) and replaces `path` in one step.

    Raises:
        RunError: the disk refuses the write; `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step; see `replacing`."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 in one step; see `replacing`."""
    write_bytes(path, text.encode())


def fill_folder(path: Path, fill: Callable[[Path], None], world: World) -> None:
    """Let `fill` write to a new folder on every rank. Collective.

    On success the folder is on disk at `path`. A folder that existed there is renamed.

    Raises:
        RunError: the disk refuses a write on any rank; `path` is unchanged.
    """
    temporary = _temporary(path)

    def make() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def put() -> None:
        for below in [*temporary.rglob("*"), temporary]:
            sync(below)
        if path.exists():
            os.replace(path, old_name(path))
        os.replace(temporary, path)
        sync(path.parent)

    def checked(work: Callable[[], None]) -> None:
        with disk_errors(path):
            work()

    try:
        world.on_root(lambda: checked(make))
        world.everywhere(lambda: checked(lambda: fill(temporary)))
        world.on_root(lambda: checked(put))
    finally:
        if world.is_root:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder: first its name in one step, then its content."""
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    os.replace(path, temporary)
    shutil.rmtree(temporary)


def _temporary(folder: Path) -> Path:
    """Return the name of a folder while it is filled or removed."""
    return folder.with_name(f".{folder.name}.tmp")


def make_folder(path: Path) -> None:
    """Create a folder and the folders above it.

    Raises:
        RunError: the disk refuses it.
    """
    with disk_errors(path, may_be_missing=False):  # /proc and automounters refuse a new folder by ENOENT
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(new):
            sync(folder.parent)


def sync(path: Path) -> None:
    """Flush a file or folder from the node's memory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: Path, may_be_missing: bool = True) -> Iterator[None]:
    """Turn a failure of the disk into a RunError that names the cause, the path and the remedy. Other errors pass.

    Args:
        may_be_missing: FileNotFoundError is the caller's to handle; False: it is a failure of the disk.
    """
    try:
        yield
    except Exception as error:
        match = _OS_ERROR.search(str(error))
        code = getattr(error, "errno", None) or (int(match[1]) if match else None)
        if code is None or (may_be_missing and isinstance(error, FileNotFoundError)):
            raise
        remedy = _REMEDIES.get(code, "repair the file system")
        raise RunError(
            f"cannot write {path}: {os.strerror(code)} ({_free(path)}): {remedy}, then start the same command again. "
            "Everything that was finished is kept"
        ) from error


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(next(p for p in path.parents if p.exists())).free / 2**20:,.1f} MiB free there"
    except OSError:
        return "free space unknown"


def sha256(path: Path) -> str:
    """Return a file's SHA-256, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def old_name(path: Path, reason: str = "old") -> Path:
    """Return a free name under which an old file or folder is kept: config.yaml.old-1."""
    candidates = (path.with_name(f"{path.name}.{reason}-{i}") for i in itertools.count(1))
    return next(c for c in candidates if not c.exists())


def is_temporary(path: Path) -> bool:
    """Whether a file or folder is an unfinished one of `replacing` or `fill_folder`."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_temporaries(folder: Path) -> None:
    """Remove the unfinished files of killed processes below a folder that no process writes to now."""
    for path in [p for p in folder.rglob(".*.tmp") if is_temporary(p)]:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def read_parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    """Read a JSON or YAML file of a run; None if there is no such file.

    Raises:
        RunError: the file is empty or cannot be parsed.
    """
    if not path.exists():
        return None
    try:
        value = parse(path.read_text())
    except (ValueError, YAMLError) as error:
        raise RunError(
            f"{path} is not readable ({error}): put back a copy, or move it away, and start again"
        ) from error
    if not value:
        raise RunError(f"{path} is empty: put back a copy, or move it away, and start again")
    return value
