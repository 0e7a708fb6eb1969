"""Progress and log of a running program: a live display on a terminal, plain lines elsewhere. Only root shows any."""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .errors import RunError, message, shown, visible
from .parallel.task import Task, Units
from .screen import SCREEN, columns

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

LINE_EVERY_S = 30.0
# Shares of what the ranks have counted (`World.count`): words, the part, the whole.
_SHARES = (("pair yield", "usable", "questions"), ("right", "correct", "responses"), ("cut", "cut", "responses"))
log = logging.getLogger("hpc_saidpo")


def start_logging(path: Path, is_root: bool) -> None:
    """Let every rank log to its own file, and root to the console too.

    Raises:
        RunError: the file cannot be opened.
    """
    try:
        handlers: list[logging.Handler] = [_File(path, encoding="utf-8")]
    except OSError as error:
        raise RunError(
            f"cannot write {shown(path)}: {error.strerror}: remove it, free space, or choose another run.root"
        ) from error
    handlers[0].setFormatter(_Visible("%(asctime)s %(levelname)s %(message)s"))
    if is_root:
        handlers.append(_Console())
        handlers[1].setFormatter(_Visible("%(message)s"))
    log.handlers[:] = handlers
    log.disabled = False  # Hydra disables the loggers that exist when it starts
    log.setLevel(logging.INFO)
    log.propagate = False


def announce(text: str) -> None:
    """Say something at once: in the log, or on standard error before there is one."""
    if log.handlers:
        log.warning("%s", text)
    else:
        print(f"hpc_saidpo: {message(text)}", file=sys.stderr, flush=True)


@functools.cache
def say_once(text: str) -> None:
    """Log a text once per process, even if it is called again."""
    log.info(text)


def log_lines(text: str, level: int = logging.INFO) -> None:
    """Log a text of several lines, such as a table, line by line."""
    for line in text.split("\n"):
        log.log(level, "%s", line)


class _Visible(logging.Formatter):
    """Shows each argument of a log line on one line: only the program begins a new one. No control character passes."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.args, tuple):
            record.args = tuple(a if isinstance(a, int | float) else visible(str(a), kept="") for a in record.args)
        return message(super().format(record))


class _File(logging.FileHandler):
    """A log file that ignores a full disk: the write that stops the run reports it. A link is not followed."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.fdopen(os.open(self.baseFilename, flags, 0o666), "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _Console(logging.Handler):
    """Writes above the display, so that a line never tears it."""

    def emit(self, record: logging.LogRecord) -> None:
        SCREEN.line(self.format(record))


_tasks: list[Task] = []  # on root; the last one is the present one
_finished: list[Task] = []  # on root, since the last call of `take_finished`


def present() -> Task | None:
    """Return the task that is being worked on; None between tasks, and on other ranks than root."""
    return _tasks[-1] if _tasks else None


def take_finished() -> list[Task]:
    """Return the tasks that have ended since the last call; [] on other ranks than root."""
    finished, _finished[:] = [*_finished], []
    return finished


class Drawn(Protocol):
    """A response that an engine is generating."""

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def finished(self) -> bool: ...


_drawing: list[Sequence[Sequence[Drawn]]] = []  # the responses that this process generates now, by question
_left: list[Callable[[], float | None]] = []  # at most one estimate of the time that the run has left, in seconds


@contextmanager
def drawing(responses: Sequence[Sequence[Drawn]]) -> Iterator[None]:
    """Count these responses in the display while an engine fills them in: a chunk may take minutes."""
    _drawing.append(responses)
    try:
        yield
    finally:
        _drawing.remove(responses)


def estimate_by(left: Callable[[], float | None] | None) -> None:
    """Show the time that the run has left as this function estimates it, in seconds; None: show none."""
    _left[:] = [left] if left else []


@contextmanager
def show(
    label: str,
    total: int,
    is_root: bool,
    n_done: int = 0,
    names: Sequence[int] | None = None,
    units: Units | None = None,
) -> Iterator[Task]:
    """Show the progress of one stage. Yields the task that the ranks report to. Args: as `Task`."""
    if not is_root:
        yield Task()
        return
    task = Task(label, total, n_done, names, units=units)
    _tasks.append(task)
    try:
        with SCREEN.showing(functools.partial(_rendered, task)) if columns() else _lines(task):
            yield task
    finally:
        _tasks.remove(task)
        _finished.append(task)
    log.info("  %s: done in %.1f s", label, time.monotonic() - task.started)


@contextmanager
def _lines(task: Task) -> Iterator[None]:
    """Log a line every LINE_EVERY_S."""
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(LINE_EVERY_S):
            log.info("%s  %s: %s", time.strftime("%H:%M:%S"), task.label, ", ".join(facts_of(task)))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def facts_of(task: Task) -> list[str]:
    """Return the state of a task in words: its units, tokens per second, shares so far, the time that is left."""
    done, tokens = task.n_units, task.counts["tokens"]
    for responses_Q in [*_drawing]:
        done += sum(all(response.finished for response in of_question) for of_question in responses_Q)
        tokens += sum(len(response.tokens) for of_question in responses_Q for response in of_question)
    done, counts, seconds = min(done, task.units.total), task.counts, time.monotonic() - task.started
    facts = [f"{done:,} of {task.units.total:,} {task.units.name}"]
    if tokens and seconds > 0:
        facts.append(f"{tokens / seconds:,.0f} tokens/s")
    facts += [
        f"{words} {counts[part] / counts[whole]:.0%}"
        for words, part, whole in _SHARES
        if part in counts and counts[whole]
    ]
    new = done - task.n_units_before
    if new > 0 and done < task.units.total:
        facts.append(f"{duration(seconds / new * (task.units.total - done))} left")
    run_s = _left[-1]() if _left else None
    return facts if run_s is None else [*facts, f"run {duration(run_s)} left"]


def duration(seconds: float) -> str:
    """Return a time in at most four characters: 45s, 12m, 7.5h, 3.2d."""
    if seconds < 100:
        return f"{seconds:.0f}s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f}m"
    hours = seconds / 3600
    if hours < 48:
        return f"{hours:.1f}h" if hours < 10 else f"{hours:.0f}h"
    return f"{hours / 24:.1f}d" if hours < 240 else f"{hours / 24:.0f}d"


def _rendered(task: Task, width: int) -> ConsoleRenderable:
    """Two lines for a terminal: the stage with a bar, and its facts."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    facts = facts_of(task)
    first = Table.grid(padding=(0, 1))
    name, room = visible(task.label.partition(":")[0], kept=""), width // 3
    name = name if len(name) <= room else f"{name[: room - 1]}…"
    bar = ProgressBar(total=max(1, task.units.total), completed=task.n_units, width=max(10, width // 4))
    first.add_row(Text(f"  {name}", no_wrap=True), bar, Text(facts[0], no_wrap=True))
    return Group(first, Text("  " + " · ".join(facts[1:]) or " ", no_wrap=True, overflow="ellipsis"))
