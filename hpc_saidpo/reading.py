"""Reading of small files that others may have written: ordinary files only, whole, and without a wait for a writer."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

MOST_BYTES = 2**28
MOST_VALUES = 1_000_000  # of a YAML file; those of an alias count each time
_BLOCK_BYTES = 2**20  # of one read
_NO_FILE = (errno.ELOOP, errno.ENXIO)  # of a link that is not followed, of a socket


class Readable(Protocol):
    """A file, or a response of a server."""

    def read(self, size: int, /) -> bytes: ...


def open_file(path: Path, follow: bool = True) -> int:
    """Open an ordinary file for reading; return its descriptor. A pipe without a writer is not waited for.

    Args:
        follow: follow the path if it is a link.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is a folder, a pipe, a device, or a link that shall not be followed.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        handle = os.open(path, flags | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno in _NO_FILE:
            raise ValueError("it is no ordinary file") from error
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise ValueError("it is no ordinary file")


def read_text(path: Path, most_bytes: int = MOST_BYTES, follow: bool = True) -> str:
    """Read a text file in UTF-8.

    Args:
        most_bytes: its largest size.

    Raises:
        OSError, ValueError: as `open_file`; or it is larger, or not in UTF-8.
    """
    with open(open_file(path, follow), "rb") as file:
        content = read_bounded(file, most_bytes)
    if len(content) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes:,} bytes")
    return content.decode()


def read_bounded(file: Readable, most_bytes: int) -> bytes:
    """Read a whole file, in blocks: a single read would take the memory of the largest size first.

    Returns:
        The content. Of a file that is larger than `most_bytes`, a beginning that is larger, too.
    """
    parts, n_bytes = [], 0
    while n_bytes <= most_bytes and (part := file.read(_BLOCK_BYTES)):
        parts.append(part)
        n_bytes += len(part)
    return b"".join(parts)


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is no JSON, or nested so deeply that it cannot be parsed.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values.

    Raises:
        ValueError: it is no such YAML, or its aliases repeat too many values.
    """
    import yaml  # imported where it is used: `hpc-saidpo status` reads JSON alone

    try:
        value = yaml.safe_load(text)
        if any(n > MOST_VALUES for n, _ in enumerate(_values(value))):
            raise ValueError(f"it has more than {MOST_VALUES:,} values")
        return value
    # The constructors of PyYAML raise exceptions of many types about a value that does not fit its tag.
    except (yaml.YAMLError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _values(value: Any) -> Iterator[Any]:
    """Yield a value and every value in its lists and mappings."""
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)
