"""Facts about a run in <name>.json of its folder, and the time of its first start. For root alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import RunError, shown
from ..reading import parse_json
from . import files
from .stage import Stage
from .tables import Damaged


def require_same(path: Path, facts: dict[str, Any], remedy: str, accept: bool) -> None:
    """Store facts, or compare them with the stored ones: see `RunDir.require_same`."""
    run = path.parent
    known = files.read_parsed(path, parse_json, dict)
    if known not in (None, facts) and not accept and any(run.rglob("*.h5")):
        raise RunError(
            f"run folder {shown(run)} was made with another {path.stem} ({shown(known)}, now {shown(facts)}): {remedy}"
        )
    if known != facts:
        files.write_text(path, json.dumps(facts))


def read_figures(iteration: Path) -> dict[str, Any]:
    """Return the figures in the metrics.json of a finished iteration.

    Raises:
        Damaged: the file is not readable, or holds something else.
    """
    figures = Stage(iteration).read_json("metrics", dict)
    if type(figures.get("iteration")) is not int or not isinstance(figures.get("signatures"), list):
        raise Damaged(iteration / "metrics.json", "holds no figures of an iteration")
    return figures


def keep(path: Path, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the fact under a key; compute and store it if it is not there."""
    known = files.read_parsed(path, parse_json, dict) or {}
    if not isinstance(known.get(key), dict):
        known[key] = compute()
        files.write_text(path, json.dumps(known, indent=1))
    return known[key]


def read_starts(path: Path) -> list[dict[str, Any]]:
    """Return the facts about each start in an env.json; [] if there is no such file.

    Raises:
        RunError: it is not readable, or holds something else.
    """
    starts = files.read_parsed(path, parse_json, list) or []
    if not all(isinstance(start, dict) and isinstance(start.get("slurm", {}), dict) for start in starts):
        raise RunError(f"{shown(path)} is no list of starts: put back a copy, or move it away, and start again")
    return starts


def first_start(path: Path) -> datetime | None:
    """Return the time of the first start in an env.json; None if it is not recorded there."""
    starts = read_starts(path) or [{}]
    try:
        return datetime.fromisoformat(str(starts[0].get("started")))
    except ValueError:
        return None
