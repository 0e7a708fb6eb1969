"""SHA-256 of files that no start reads twice: from the manifest of a finished stage, or from an earlier start."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..reading import parse_json
from . import disk, files
from .stage import Stage
from .tables import READABLE, Damaged

_LEVELS = 3  # folders between a file of a stage and the stage's manifest, at most


class Hashes:
    """The file of known hashes. Not collective: root only.

    It holds the state of a file (size, times, inode) when it was hashed; a file in another state is hashed again. Jobs
    that write it at the same moment may lose each other's additions, which are then computed again.

    Args:
        path: a JSON file, {path: [state, SHA-256]}.
    """

    def __init__(self, path: Path):
        self.path = path

    def of(self, paths: Sequence[Path]) -> list[str]:
        """Return the SHA-256 of each file.

        Raises:
            OSError: there is no such file.
        """
        known = self._load()
        result, computed = [], {}
        for path in paths:
            key, state = str(path.resolve()), _state(path)
            stored = known.get(key)
            value = stored[1] if stored and stored[0] == state else _in_manifest(path, state[0])
            if value is None:
                value = files.sha256(path)
                if _state(path) == state:
                    computed[key] = [state, value]
            result.append(value)
        if computed:
            files.make_folder(self.path.parent)
            files.write_text(self.path, json.dumps({**self._load(), **computed}, indent=1))
        return result

    def _load(self) -> dict[str, Any]:
        try:
            known = files.read_parsed(self.path, parse_json, dict) or {}
            return {key: entry for key, entry in known.items() if _is_entry(entry)}
        except RunError:  # damaged: the hashes are computed again
            return {}


def _is_entry(value: object) -> bool:
    """Whether a value is [state of a file, its SHA-256]."""
    return isinstance(value, list) and len(value) == 2 and re.fullmatch("[0-9a-f]{64}", str(value[1])) is not None


def _state(path: Path) -> list[int]:
    """Return size, times and inode of a file: they change when its content does."""
    status = disk.persist(path, path.stat)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _in_manifest(path: Path, n_bytes: int) -> str | None:
    """Return the SHA-256 of a file of a finished stage; None if no manifest lists it."""
    for folder in list(path.resolve().parents)[:_LEVELS]:
        stage = Stage(folder)
        if stage.done and disk.persist(folder, (folder / "DONE").stat).st_size:  # that of an iteration is empty
            try:
                known = stage.manifest(READABLE).get(str(path.resolve().relative_to(folder)))
            except Damaged:
                return None
            return known["sha256"] if known and known["bytes"] == n_bytes else None
    return None
