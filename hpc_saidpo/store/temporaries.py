"""Temporary files and folders: random names that only this program makes, created so that no link is followed."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from ..errors import RunError, shown

_NAME = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
_KEPT_BYTES = 200  # of the name of the finished file


def beside(path: Path) -> Path:
    """Return a new name beside a file or folder, for its content while it is prepared or removed."""
    kept = path.name.encode(errors="replace")[:_KEPT_BYTES].decode(errors="ignore")
    return path.with_name(f".{kept}.{os.urandom(8).hex()}.tmp")


def create(path: Path) -> int:
    """Create a file that does not exist yet; return its descriptor, for writing.

    Raises:
        FileExistsError: there is something under this name, if only a link that leads nowhere.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def is_temporary(path: Path) -> bool:
    """Whether a file or folder has a name that `beside` makes."""
    return _NAME.fullmatch(path.name) is not None


def in_folders(folders: Iterable[Path]) -> list[Path]:
    """Return the temporary files and folders that lie directly in some folders. Links to folders are not followed."""
    found = []
    for folder in folders:
        if not folder.is_symlink():
            with os.scandir(folder) as entries:
                found += [path for path in map(Path, entries) if is_temporary(path)]
    return found


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content; a link itself. What cannot be removed stays."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    except OSError:  # another process removes it too
        return


def owner_of(path: Path) -> int:
    """Return the user id of the owner of a file or folder, of a link itself. -1: there is none."""
    try:
        return os.lstat(path).st_uid
    except FileNotFoundError:
        return -1


def require_own(folder: Path, own: Path) -> None:
    """Make sure that a folder is one of this user, and no link.

    Args:
        own: a file that this process has made. Its owner is compared: a file server may show another user than the
            process has.

    Raises:
        RunError: it is a link, a file, or a folder of another user.
    """
    if owner_of(folder) != owner_of(own) or not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise RunError(
            f"{shown(folder)} is a link, or belongs to another user, but this program writes to it: look at it and "
            "remove it, ask its owner to do so, or choose another run.root"
        )
