"""Facts about a run in <name>.json of its folder, and the time of its first start. For root alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import RunError
from . import files, parsed


def require_same(path: Path, facts: dict[str, Any], remedy: str, accept: bool) -> None:
    """Store facts, or compare them with the stored ones: see `RunDir.require_same`."""
    run = path.parent
    known = files.read_parsed(path, parsed.parse_json)
    if known not in (None, facts) and not accept and any(run.rglob("*.h5")):
        raise RunError(f"run folder {run} was made with another {path.stem} ({known}, now {facts}): {remedy}")
    if known != facts:
        files.write_text(path, json.dumps(facts))


def keep(path: Path, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the fact under a key; compute and store it if it is not there."""
    known = files.read_parsed(path, parsed.parse_object) or {}
    if key not in known:
        known[key] = compute()
        files.write_text(path, json.dumps(known, indent=1))
    return known[key]


def first_start(path: Path) -> datetime | None:
    """Return the time of the first start in an env.json; None if it is not recorded there."""
    starts = files.read_parsed(path, parsed.parse_objects) or [{}]
    try:
        return datetime.fromisoformat(str(starts[0].get("started")))
    except ValueError:
        return None
