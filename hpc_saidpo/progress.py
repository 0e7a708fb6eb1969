"""Progress and log of a running program: bars on a terminal, plain lines elsewhere. Only root shows any."""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from .errors import RunError, message, shown, visible
from .parallel.task import Task

LINE_EVERY_S = 10.0
WIDEST, DEFAULT_COLUMNS = 100, 80  # characters of a bar; of a terminal that does not tell its width
LAUNCHERS = ("mpiexec", "mpirun", "hydra", "prte", "orte")
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
    """Writes while no bar is shown, so that a line never breaks a bar."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=_screen()):
            print(self.format(record), flush=True)


_tasks: list[Task] = []  # on root; the last one is the present one
_finished: list[Task] = []  # on root, since the last call of `take_finished`


def present() -> Task | None:
    """Return the task that is being worked on; None between tasks, and on other ranks than root."""
    return _tasks[-1] if _tasks else None


def take_finished() -> list[Task]:
    """Return the tasks that have ended since the last call; [] on other ranks than root."""
    finished, _finished[:] = [*_finished], []
    return finished


@contextmanager
def show(label: str, total: int, is_root: bool, n_done: int = 0, names: Sequence[int] | None = None) -> Iterator[Task]:
    """Show the progress of one stage. Yields the task that the ranks report to. Args: as `Task`."""
    if not is_root:
        yield Task()
        return
    with _display(label, total, n_done) as advance:
        task = Task(label, total, n_done, names, advance)
        _tasks.append(task)
        try:
            yield task
        finally:
            _tasks.remove(task)
            _finished.append(task)
    log.info("  %s: done in %.1f s", label, time.monotonic() - task.started)


@contextmanager
def _display(label: str, total: int, n_done: int) -> Iterator[Callable[[], object]]:
    """Yield a function that shows one more finished item."""
    if columns := terminal_columns():
        # A full line would make some terminals begin the next one.
        width = min(columns - 1, WIDEST)
        desc = f"  {shown(label)}"
        with tqdm(total=total, initial=n_done, desc=desc, leave=False, file=_screen(), ncols=width) as bar:
            yield bar.update
    else:
        yield _Lines(label, total, n_done)


def _screen() -> TextIO:
    """Return standard error without the guard of `terminal`: a bar moves the cursor."""
    return getattr(sys.stderr, "unguarded", sys.stderr)


@functools.cache
def terminal_columns() -> int:
    """Return the width of the terminal at which a person watches, in characters; 0 if there is none.

    It is stderr, or stderr of the MPI launcher to which our stderr is a pipe.
    """
    if sys.stderr.isatty():
        return _columns("/dev/fd/2")
    pid = os.getppid()
    try:
        while (name := Path(f"/proc/{pid}/comm").read_text().strip()).startswith(LAUNCHERS):
            if os.readlink(f"/proc/{pid}/fd/2").startswith(("/dev/pts/", "/dev/tty")):
                return _columns(f"/proc/{pid}/fd/2")
            # "pid (name) state ppid ...": only the name may contain spaces and brackets
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(f"({name})")[2].split()[1])
    except OSError:  # no /proc, or a launcher of another user
        pass
    return 0


def _columns(terminal: str) -> int:
    """Return the width of a terminal; DEFAULT_COLUMNS where it does not tell."""
    try:
        descriptor = os.open(terminal, os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return DEFAULT_COLUMNS
    try:
        return os.get_terminal_size(descriptor).columns or DEFAULT_COLUMNS
    except OSError:
        return DEFAULT_COLUMNS
    finally:
        os.close(descriptor)


class _Lines:
    """A line every few seconds, for log files."""

    def __init__(self, label: str, total: int, n_done: int):
        self.label, self.total, self.count, self.last = label, total, n_done, time.monotonic()

    def __call__(self) -> None:
        self.count += 1
        if time.monotonic() - self.last >= LINE_EVERY_S:
            self.last = time.monotonic()
            log.info("  %s: %d/%d", self.label, self.count, self.total)
