"""Files that appear whole or not at all, survive the node, and whose failures are told in words."""

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

from yaml import YAMLError

from ..errors import RunError
from ..parallel.world import World

_TEMPORARY = re.compile(r"\..+\.tmp")
_OS_ERROR = re.compile(r"os error (\d+)")  # how safetensors, written in Rust, tells its errno
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space",
    errno.EDQUOT: "your quota is used up: free space or files",
    errno.EFBIG: "a limit on file sizes is in force: raise it (ulimit -f)",
    errno.EROFS: "the file system is read-only: have it mounted writable, or choose another run.root",
    errno.EACCES: "permission is denied: make the folder writable, or choose another run.root",
    errno.EPERM: "permission is denied: make the folder writable, or choose another run.root",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on success it is on disk (fsync) and takes the place of `path` in one step.

    Raises:
        RunError: the disk refuses; `path` is what it was before.
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
    """Write a file; see `replacing`."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; see `replacing`."""
    write_bytes(path, text.encode())


def fill_folder(path: Path, fill: Callable[[Path], None], world: World) -> None:
    """Let `fill`, on every rank, write to a new folder. Collective.

    On success it is on disk and stands at `path`, whose former content makes way.

    Raises:
        RunError: the disk refuses, on any rank; `path` is what it was before.
    """
    temporary = _temporary(path)

    def make():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def put():
        for below in [*temporary.rglob("*"), temporary]:
            sync(below)
        if path.exists():
            os.replace(path, old_name(path))
        os.replace(temporary, path)
        sync(path.parent)

    def told(work):
        with disk_errors(path):
            work()

    try:
        world.on_root(lambda: told(make))
        world.everywhere(lambda: told(lambda: fill(temporary)))
        world.on_root(lambda: told(put))
    finally:
        if world.is_root:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder, which is gone as a whole before anything of it is."""
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    os.replace(path, temporary)
    shutil.rmtree(temporary)


def _temporary(folder: Path) -> Path:
    """Where it stands while it is filled or removed."""
    return folder.with_name(f".{folder.name}.tmp")


def make_folder(path: Path) -> None:
    """Create a folder and those above it.

    Raises:
        RunError: the disk refuses.
    """
    with disk_errors(path):
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(new):
            sync(folder.parent)


def sync(path: Path) -> None:
    """Have what is written to a file or folder on the disk, not in the node's memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Tell a refusal of the disk as what it is, where, and what to do; other errors pass."""
    try:
        yield
    except Exception as error:
        told = _OS_ERROR.search(str(error))
        code = getattr(error, "errno", None) or (int(told[1]) if told else None)
        if code is None or isinstance(error, FileNotFoundError):
            raise
        remedy = _REMEDIES.get(code, "mend the file system")
        raise RunError(
            f"cannot write {path}: {os.strerror(code)} ({_free(path)}): {remedy}, then start the same command again. "
            "Everything finished before is kept"
        ) from error


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(next(p for p in path.parents if p.exists())).free / 2**20:,.1f} MiB free there"
    except OSError:
        return "free space unknown"


def sha256(path: Path) -> str:
    """The file's SHA-256, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def old_name(path: Path, reason: str = "old") -> Path:
    """A free name to keep something under: config.yaml.old-1."""
    candidates = (path.with_name(f"{path.name}.{reason}-{i}") for i in itertools.count(1))
    return next(c for c in candidates if not c.exists())


def is_temporary(path: Path) -> bool:
    """Whether a file or folder is one that `replacing` had not finished."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left half-written below a folder that no process writes to now."""
    for path in [p for p in folder.rglob(".*.tmp") if is_temporary(p)]:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def parsed(path: Path, parse: Callable[[str], object]):
    """The content of a run's own JSON or YAML file; None when there is no such file."""
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
