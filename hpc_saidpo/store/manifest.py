"""The manifest of a finished stage (DONE): its layout, and size and SHA-256 of each of its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import words_of
from . import disk, parsed
from .tables import SCHEMA_VERSION, Damaged

Listed = dict[str, dict[str, Any]]  # name of a file -> {"bytes": size, "sha256": hex digits}


def write(listed: Listed) -> str:
    """Return the text of a manifest."""
    return json.dumps({"schema_version": SCHEMA_VERSION, "files": listed, "sha256": hash_of(listed)}, indent=1)


def read(path: Path) -> tuple[int, Listed]:
    """Return the layout (schema_version) of a stage, and its files.

    Raises:
        Damaged: the file cannot be read, or is no manifest.
    """
    try:
        manifest = disk.persist(path, lambda: parsed.read_json(path))
        version, listed = manifest["schema_version"], manifest["files"]
        if manifest["sha256"] != hash_of(listed):
            raise ValueError("the SHA-256 of the list does not fit")
        if type(version) is not int or not isinstance(listed, dict) or not all(map(_is_entry, listed, listed.values())):
            raise ValueError("it is no list of files")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(path, f"is not readable ({words_of(error)})") from error
    return version, listed


def _is_entry(name: str, facts: object) -> bool:
    """Whether a manifest may have this entry: the name of a file in the stage's folder, with its size and SHA-256."""
    parts = PurePosixPath(name).parts
    is_inside = bool(parts) and ".." not in parts and parts[0] != "/" and "\0" not in name
    return (
        is_inside
        and isinstance(facts, dict)
        and type(facts.get("bytes")) is int
        and isinstance(facts.get("sha256"), str)
    )


def hash_of(listed: object) -> str:
    """Return the SHA-256 of a list of files."""
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
