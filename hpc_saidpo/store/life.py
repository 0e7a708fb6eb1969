"""Signs of life of a run: what its ranks do, in files that `hpc-saidpo status` reads. Imports nothing heavy.

Root writes progress.json every few seconds while the run's lock is held, and work.json after each stage: what every
rank has done in it. They are hints and no results: nothing of a run depends on them, they are not synced, and a disk
that refuses them does not end the run. A rank that fails alone, and with it the job, writes failure.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import origin_of, reason_of
from ..parallel.stop import Stopped
from ..parallel.task import ALL_RANKS, SILENT_S, Silence, Task
from ..parallel.world import World
from ..progress import estimate_by, log, present, take_finished
from ..reading import parse_json, read_text
from . import temporaries
from .time_left import time_left

PROGRESS, WORK, FAILURE = "progress.json", "work.json", "failure.json"
BEAT_S = 10.0
Work = dict[int, tuple[float, float]]  # rank, or ALL_RANKS -> its busy seconds and tokens
RUNNING, STOPPED, FAILED, COMPLETE = "running", "stopped", "failed", "complete"


class Life:
    """The signs of life of one start. Only root writes progress.json; on other ranks most methods do nothing.

    Args:
        folder: the run folder.
        beat_s: time between two signs, in seconds.
        silent_s: no rank is reported as silent before so many seconds.
    """

    def __init__(self, folder: Path, world: World, beat_s: float = BEAT_S, silent_s: float = SILENT_S):
        self._folder, self._world, self._beat_s, self._silent_s = folder, world, beat_s, silent_s
        self._iterations = 0
        self._places: list[tuple[str, float]] = []  # the stages in progress, the outermost first, and their begin
        self._spent_s: dict[str, float] = {}
        self._work: dict[str, Work] = {}
        self._waits_for = ""
        self._end = (RUNNING, "")
        self._reported: set[tuple[str, int, int]] = set()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, iterations: int) -> None:
        """Begin to write, on root. The time that earlier starts have spent on each stage is added up.

        Args:
            iterations: of the whole run; 0 for an evaluation.
        """
        self._iterations = iterations
        with contextlib.suppress(OSError):
            (self._folder / FAILURE).unlink(missing_ok=True)
        before = read_progress(self._folder)
        self._spent_s = dict(before.get("spent_s", {}))
        if before.get("state") == RUNNING and before["place"]:  # a killed job
            self._add(before["place"], before["place_s"])
        self._work = read_work(self._folder)
        self._write()
        estimate_by(self.left_s)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def working(self, place: str) -> Iterator[None]:
        """Note that a stage is in progress for the time of the context; of nested ones the outermost counts.

        Args:
            place: the stage's folder in the run, or the name of a shared artefact.
        """
        self._places.append((place, time.monotonic()))
        try:
            yield
        finally:
            self._waits_for = ""
            _, begun = self._places.pop()
            if not self._places:
                self._add(place, time.monotonic() - begun)
                self._note_work(place)

    def _note_work(self, place: str) -> None:
        """Add up what the ranks have done in the tasks of a stage, on root."""
        work = [self._work.get(place, {}), *(task.work for task in take_finished())]
        if self._thread is None or not any(work[1:]):
            return
        ranks = sorted({rank for part in work for rank in part})
        parts = {rank: [part[rank] for part in work if rank in part] for rank in ranks}
        self._work[place] = {r: (sum(s for s, _ in of), sum(n for _, n in of)) for r, of in parts.items()}
        plain = {name: [[r, round(s, 3), n] for r, (s, n) in of.items()] for name, of in self._work.items()}
        _replace(self._folder / WORK, plain)

    def work(self) -> dict[str, tuple[float, Work]]:
        """Return the seconds that every stage has taken so far, and the work of each rank in it, on root."""
        return {place: (seconds, self._work.get(place, {})) for place, seconds in self._spent_s.items()}

    def waits(self, message: str) -> None:
        """Note what the run waits for; "": for nothing any more."""
        self._waits_for = message

    def note_end(self, message: str) -> None:
        """Note why the run ends before its last iteration: a pause, depletion, another failure signature."""
        self._end = (STOPPED, message) if message else (COMPLETE, "")

    def end(self, error: BaseException | None) -> None:
        """Write the end of this start. On another rank than root: write the failure, if this rank fails alone."""
        if self._thread is None:
            if isinstance(error, Exception) and not isinstance(error, Stopped) and origin_of(error) is None:
                self._write_failure(error)
            return
        estimate_by(None)
        self._ended.set()
        self._thread.join()
        if isinstance(error, Stopped):
            self._end = STOPPED, f"stopped by {error}: start it again"
        elif error is not None:
            self._end = FAILED, f"{origin_of(error) or self._world.name_of(0)}: {reason_of(error)}"
        self._write()

    def _write_failure(self, error: Exception) -> None:
        message = f"{self._world.name_of(self._world.rank)}: {reason_of(error)}"
        _replace(self._folder / FAILURE, {"message": message, "written": time.time()})

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_s):
            self._write()

    def _add(self, place: str, seconds: float) -> None:
        self._spent_s[place] = self._spent_s.get(place, 0.0) + seconds

    def left_s(self) -> float | None:
        """Return an estimate of the time until the run is complete, in seconds; None where a stage is not measured."""
        left_s, is_least = time_left(self._timing(present()))
        return None if is_least else left_s

    def _timing(self, task: Task | None) -> dict[str, Any]:
        """The facts from which the time that is left can be estimated."""
        now, places = time.monotonic(), [*self._places]  # other threads call this
        place, begun = places[0] if places else ("", now)
        facts: dict[str, Any] = {"iterations": self._iterations, "place": place, "place_s": now - begun}
        facts |= {"done": None, "total": None, "done_before": None, "task_s": None}
        if task is not None and not task.units.is_part:
            facts |= {"done": task.n_done, "total": task.total, "done_before": task.n_before}
        if task is not None:
            facts |= {"task_s": now - task.started}
        return {**facts, "spent_s": dict(self._spent_s)}

    def _write(self) -> None:
        task = present()
        timing = self._timing(task)
        silences = task.silences(self._silent_s) if task else []
        state, message = self._end if self._ended.is_set() else (RUNNING, "")
        record = {
            "written": time.time(),
            "beat_s": self._beat_s,
            "state": COMPLETE if self._ended.is_set() and state == RUNNING else state,
            "message": message,
            "counts": dict(task.counts) if task else {},
            "waits_for": self._waits_for,
            "silent": [self._report(timing["place"], silence) for silence in silences],
            **timing,
        }
        _replace(self._folder / PROGRESS, record)

    def _report(self, place: str, silence: Silence) -> str:
        """Return a message about a silent rank; log it once for each item."""
        together = silence.rank == ALL_RANKS
        who = "the ranks together" if together else self._world.name_of(silence.rank)
        message = (
            f"{who}: silent at {'step' if together else 'chunk'} {silence.item} of {place or 'this stage'} for "
            f"{silence.seconds:.0f} s (the longest one took {silence.longest_s:.0f} s)"
        )
        key = (place, silence.rank, silence.item)
        if key not in self._reported:
            self._reported.add(key)
            log.warning("  %s", message)
        return message


def read_progress(run: Path) -> dict[str, Any]:
    """Return the record in a run's progress.json; {} if there is none, or a value of it has another type."""
    record = read(run / PROGRESS)
    fits = all(name in record and is_of_type(record[name]) for name, is_of_type in _TYPES.items())
    return record if fits else {}


def read_work(run: Path) -> dict[str, Work]:
    """Return the work of each rank in each stage, from a run's work.json; a stage with other values is left out."""
    stages = read(run / WORK)
    return {place: {row[0]: (row[1], row[2]) for row in rows} for place, rows in stages.items() if _are_rows(rows)}


def _are_rows(value: object) -> bool:
    rows = value if isinstance(value, list) else [None]
    return all(isinstance(row, list) and len(row) == 3 and all(map(is_number, row)) for row in rows)


def read(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if there is none, or it is not readable."""
    value = _parsed(path)
    return value if isinstance(value, dict) else {}


def read_list(path: Path) -> list[dict[str, Any]]:
    """Return the objects of the list in a JSON file, as `read`."""
    value = _parsed(path)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def is_number(value: object) -> bool:
    """Whether a value of JSON is a finite number of a size that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number_or_none(value: object) -> bool:
    return value is None or is_number(value)


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


_TYPES: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("written", "beat_s", "iterations", "place_s"), is_number),
    **dict.fromkeys(("done", "total", "done_before", "task_s"), _is_number_or_none),
    **dict.fromkeys(("state", "message", "place", "waits_for"), _is_text),
    **dict.fromkeys(("counts", "spent_s"), _are_numbers),
    "silent": lambda value: isinstance(value, list) and all(map(_is_text, value)),
}


def _parsed(path: Path) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return parse_json(read_text(path))
    return None


def _replace(path: Path, record: dict[str, Any]) -> None:
    """Write a record in one step. A failure of the disk is ignored: whoever writes a result reports it."""
    temporary = temporaries.beside(path)
    with contextlib.suppress(OSError):
        try:
            with open(temporaries.create(temporary), "w", encoding="utf-8") as file:
                file.write(json.dumps(record, indent=1))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
