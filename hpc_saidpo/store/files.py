"""Atomic and durable writes: a file appears complete or not at all."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RunError, shown, words_of
from ..parallel.world import World
from ..reading import open_file, read_text
from . import disk, temporaries

T = TypeVar("T")


def replace(path: Path, write: Callable[[Path], T]) -> T:
    """Let `write` write a temporary file. Its content is on disk (fsync) before it replaces `path` in one step.

    Args:
        write: writes to the empty file that it is given. It is called again if the file system fails for a moment.

    Returns:
        The result of `write`.

    Raises:
        RunError: the disk refuses the write; `path` is unchanged.
    """
    temporary = temporaries.beside(path)

    def replacing() -> T:
        try:
            temporary.unlink(missing_ok=True)  # of an attempt that failed
            os.close(temporaries.create(temporary))
            result = write(temporary)
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
            return result
        finally:
            temporary.unlink(missing_ok=True)

    return disk.write(path, replacing)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step; see `replace`."""
    replace(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 in one step; see `replace`."""
    write_bytes(path, text.encode())


def append(path: Path, content: bytes) -> None:
    """Append to a file. After a failure it has its earlier content.

    Raises:
        RunError: the disk refuses the write.
    """
    n_bytes = disk.write(path, lambda: path.stat().st_size if path.exists() else 0)

    def append_after() -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags, 0o666), "ab") as file:
            file.truncate(n_bytes)  # to the earlier content, if this is not the first attempt
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    disk.write(path, append_after)


def fill_folder(path: Path, fill: Callable[[Path], object], world: World) -> None:
    """Let `fill` write to a new folder on every rank. Collective.

    On success the folder is on disk at `path`. A folder that existed there is renamed. Every rank syncs all files: a
    rank on one node cannot flush what a rank on another node wrote.

    Args:
        fill: if the file system fails for a moment on any rank, it is called again on every rank, with an empty folder.

    Raises:
        RunError: the disk refuses a write on any rank; `path` is unchanged.
    """
    temporary = world.on_root(lambda: temporaries.beside(path))

    def make() -> None:
        shutil.rmtree(temporary, ignore_errors=True)  # of an attempt that failed
        temporary.mkdir(parents=True)

    def fill_on_all() -> None:
        world.on_root(make)
        for work in (lambda: fill(temporary), lambda: _share_below(temporary), lambda: sync_below(temporary)):
            world.everywhere(disk.disk_errors(path)(work))

    def put() -> None:
        if temporary.exists():  # else the last attempt has moved it
            if path.exists():
                os.replace(path, old_name(path))
            os.replace(temporary, path)
        sync(path.parent)

    try:
        disk.write(path, fill_on_all)
        world.on_root(lambda: disk.write(path, put))
    finally:
        if world.is_root:
            shutil.rmtree(temporary, ignore_errors=True)


def _share_below(folder: Path) -> None:
    """Give files the permissions of their folder, as the umask says: safetensors lets their owner alone read them."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)


def move(path: Path, to: Path) -> None:
    """Rename a file or folder. One of that name is replaced, if it is a file or an empty folder.

    Raises:
        RunError: the disk refuses it.
    """

    def rename() -> None:
        if path.exists() or not to.exists():  # else the last attempt has renamed it
            os.replace(path, to)

    disk.write(path, rename)


def remove_folder(path: Path) -> None:
    """Remove a folder: first its name in one step, then its content.

    Raises:
        RunError: the disk refuses it.
    """
    temporary = temporaries.beside(path)

    def remove() -> None:
        if path.exists():  # else the last attempt has renamed it
            os.replace(path, temporary)
        shutil.rmtree(temporary)

    disk.write(path, remove)


def remove_file(path: Path) -> None:
    """Remove a file, if there is one.

    Raises:
        RunError: the disk refuses it.
    """
    disk.write(path, lambda: path.unlink(missing_ok=True))


def make_folder(path: Path) -> None:
    """Create a folder and the folders above it.

    Raises:
        RunError: the disk refuses it.
    """

    def make() -> None:
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(new):
            sync(folder.parent)

    disk.write(path, make, may_be_missing=False)  # /proc and automounters refuse a new folder by ENOENT


def sync_below(folder: Path) -> None:
    """Flush a folder, and the files and folders in it, from the node's memory to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Flush a file or folder from the node's memory to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return a file's SHA-256, as `sha256sum` prints it."""

    def read() -> str:
        with open(open_file(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return disk.persist(path, read)


def old_name(path: Path, reason: str = "old") -> Path:
    """Return a free name under which an old file or folder is kept: config.yaml.old-1."""
    return next(c for c in _candidates(path, reason) if not c.exists())


def old_names(path: Path) -> list[Path]:
    """Return what is kept of a file under the names of `old_name`, the oldest first."""
    return [*itertools.takewhile(Path.exists, _candidates(path, "old"))]


def _candidates(path: Path, reason: str) -> Iterator[Path]:
    return (path.with_name(f"{path.name}.{reason}-{i}") for i in itertools.count(1))


def read_parsed(path: Path, parse: Callable[[str], Any], kind: type[T]) -> T | None:
    """Read a JSON or YAML file of a run; None if there is no such file.

    Args:
        parse: raises ValueError if the text cannot be parsed.
        kind: the type that its value must have: list, dict, or object for any.

    Raises:
        RunError: the file cannot be read, is empty, cannot be parsed, or holds another type.
    """
    if not disk.exists(path):
        return None
    remedy = "put back a copy, or move it away, and start again"
    try:
        value = parse(disk.persist(path, lambda: read_text(path)))
    except (ValueError, OSError) as error:
        raise RunError(f"{shown(path)} is not readable ({words_of(error)}): {remedy}") from error
    if not value:
        raise RunError(f"{shown(path)} is empty: {remedy}")
    if not isinstance(value, kind):
        raise RunError(f"{shown(path)} is not readable (it holds no {_NAMES[kind]}): {remedy}")
    return value


_NAMES = {list: "list", dict: "table of keys and values"}
