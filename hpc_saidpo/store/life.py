"""Signs of life of a run: what its ranks do, in files that `hpc-saidpo status` reads. Imports nothing heavy.

Root writes progress.json every few seconds while the run's lock is held. It is a hint and no result: nothing of a run
depends on it, it is not synced, and a disk that refuses it does not end the run. A rank that fails alone, and with it
the job, writes failure.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter

from ..errors import RunError, origin_of, words_of
from ..parallel.stop import Stopped
from ..parallel.task import ALL_RANKS, SILENT_S, Silence
from ..parallel.world import World
from ..progress import log, present
from .parsed import read_json

PROGRESS, FAILURE = "progress.json", "failure.json"
BEAT_S = 10.0
RUNNING, STOPPED, FAILED, COMPLETE = "running", "stopped", "failed", "complete"


@dataclass(frozen=True)
class Progress:
    """The content of progress.json.

    Attributes:
        written: time of the sign of life, seconds since the epoch.
        beat_s: time between two signs.
        state, message: of the start, and why it ended.
        iterations: of the whole run; 0 for an evaluation.
        place: the stage in progress; "" between stages. It has taken `place_s`.
        done, total, done_before: items of the stage: finished, all, finished by earlier starts. None: no such figures.
        task_s: time since the first of its items in this start.
        counts: sums over its finished items.
        waits_for: what the run waits for; "" for nothing.
        silent: messages about silent ranks.
        spent_s: time spent on each stage.
    """

    written: FiniteFloat
    beat_s: FiniteFloat
    state: str
    message: str
    iterations: NonNegativeInt
    place: str
    place_s: FiniteFloat
    waits_for: str
    silent: list[str]
    spent_s: dict[str, FiniteFloat]
    done: NonNegativeInt | None = None
    total: NonNegativeInt | None = None
    done_before: NonNegativeInt | None = None
    task_s: FiniteFloat | None = None
    counts: dict[str, FiniteFloat] = field(default_factory=dict)


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
        (self._folder / FAILURE).unlink(missing_ok=True)
        if before := read_progress(self._folder / PROGRESS):
            self._spent_s = dict(before.spent_s)
            if before.state == RUNNING and before.place:  # a killed job
                self._add(before.place, before.place_s)
        self._write()
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
        self._ended.set()
        self._thread.join()
        if isinstance(error, Stopped):
            self._end = STOPPED, f"stopped by {error}: start it again"
        elif error is not None:
            self._end = FAILED, f"{origin_of(error) or self._world.name_of(0)}: {_words(error)}"
        self._write()

    def _write_failure(self, error: Exception) -> None:
        message = f"{self._world.name_of(self._world.rank)}: {_words(error)}"
        _replace(self._folder / FAILURE, {"message": message, "written": time.time()})

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_s):
            self._write()

    def _add(self, place: str, seconds: float) -> None:
        self._spent_s[place] = self._spent_s.get(place, 0.0) + seconds

    def _write(self) -> None:
        task, now = present(), time.monotonic()
        place, begun = self._places[0] if self._places else ("", now)
        facts: dict[str, Any] = {"done": None, "total": None, "done_before": None, "task_s": None, "counts": {}}
        silent: list[str] = []
        if task is not None:
            facts = {"done": task.n_done, "total": task.total, "done_before": task.n_before}
            facts |= {"task_s": now - task.started, "counts": dict(task.counts)}
            silent = [self._report(place, silence) for silence in task.silences(self._silent_s)]
        state, message = self._end if self._ended.is_set() else (RUNNING, "")
        record = {
            "written": time.time(),
            "beat_s": self._beat_s,
            "state": COMPLETE if self._ended.is_set() and state == RUNNING else state,
            "message": message,
            "iterations": self._iterations,
            "place": place,
            "place_s": now - begun,
            **facts,
            "waits_for": self._waits_for,
            "silent": silent,
            "spent_s": dict(self._spent_s),
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


def read_progress(path: Path) -> Progress | None:
    """Return the content of progress.json; None if there is none, or it is not readable."""
    with contextlib.suppress(OSError, ValueError):  # pydantic's errors are ValueErrors
        return TypeAdapter(Progress).validate_python(read_json(path))
    return None


def read_message(path: Path) -> str:
    """Return the message of failure.json; "" if there is none, or it is not readable."""
    with contextlib.suppress(OSError, ValueError):
        value = read_json(path)
        return str(value.get("message", "")) if isinstance(value, dict) else ""
    return ""


def _replace(path: Path, record: dict[str, Any]) -> None:
    """Write a record in one step. A failure of the disk is ignored: whoever writes a result reports it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(record, indent=1))
        os.replace(temporary, path)


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, RunError) else words_of(error, with_type=True)
