"""The time that a run has left, estimated from its signs of life. Imports nothing heavy."""

from __future__ import annotations

import re
from typing import Any

from ..records import STAGES

_PLACE = re.compile(r"(?:iter-([0-9]{1,9})|base)/(.+)")


def time_left(record: dict[str, Any]) -> tuple[float | None, bool]:
    """Return the time until a run is complete, in seconds, and whether stages are missing in it that were not measured.

    The stage in progress lasts as its items so far; each later stage as long as the same one of earlier iterations.
    """
    match, n_iterations = _PLACE.fullmatch(record["place"]), record["iterations"]
    spent: dict[str, list[float]] = {}
    for place, seconds in record["spent_s"].items():
        if (known := _PLACE.fullmatch(place)) and place != record["place"]:
            spent.setdefault(known[2], []).append(seconds)
    if not match:  # the preparation
        return None, True
    expected = {name: sum(seconds) / len(seconds) for name, seconds in spent.items()}
    evaluations = sorted(name for name in {*expected, match[2]} if name.startswith("evaluate/"))
    names = [*STAGES, *evaluations]
    if match[2] not in names:
        return None, True
    of_stage = _stage_left(record, expected.get(match[2]))
    iteration = int(match[1]) if match[1] else -1
    # Before the first iteration there are evaluations alone: they are all the rest.
    to_come = {name: max(0, n_iterations - iteration - 1) for name in names}
    for name in names[names.index(match[2]) + 1 :]:
        to_come[name] += 1
    unknown = [name for name, times in to_come.items() if times and name not in expected]
    known_s = sum(times * expected[name] for name, times in to_come.items() if name in expected)
    return (of_stage or 0.0) + known_s, bool(unknown) or of_stage is None


def _stage_left(record: dict[str, Any], expected_s: float | None) -> float | None:
    total, done, before, task_s = (record[name] for name in ("total", "done", "done_before", "task_s"))
    if None not in (total, done, before, task_s) and done > before:
        return task_s / (done - before) * (total - done)
    return None if expected_s is None else max(0.0, expected_s - record["place_s"])
