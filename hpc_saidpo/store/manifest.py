"""The manifest of a finished stage, its file DONE: layout, sizes and SHA-256 of all files, and a hash of this list."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypedDict

from ..errors import words_of
from ..names import inside
from ..reading import parse_json, read_text
from . import disk
from .tables import SCHEMA_VERSION, Damaged

DONE = "DONE"


class Facts(TypedDict):
    """Facts about a file when its stage was finished."""

    bytes: int
    sha256: str


def text_of(listed: dict[str, Facts]) -> str:
    """Return the content of the manifest of these files."""
    manifest = {"schema_version": SCHEMA_VERSION, "files": listed, "sha256": _hash(listed)}
    return json.dumps(manifest, indent=1)


def read_manifest(folder: Path) -> tuple[int, dict[str, Facts]]:
    """Return the layout of a finished stage, and the facts about each of its files.

    Raises:
        Damaged: the manifest cannot be read, or it names a file that does not lie in the folder.
    """
    path = folder / DONE
    try:
        return disk.persist(path, lambda: _read(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(path, f"is not readable ({words_of(error)})") from error


def _read(folder: Path) -> tuple[int, dict[str, Facts]]:
    manifest = parse_json(read_text(folder / DONE))
    version, listed = manifest["schema_version"], manifest["files"]
    if manifest["sha256"] != _hash(listed):
        raise ValueError("the SHA-256 of the list does not fit")
    for name, facts in listed.items():
        inside(folder, name)
        if type(facts["bytes"]) is not int or not isinstance(facts["sha256"], str):
            raise ValueError(f"{name!r} has no size or no SHA-256")
    return version, listed


def _hash(listed: dict[str, Facts]) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
