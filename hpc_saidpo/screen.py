"""The terminal at which a person watches: where it is, how wide, and one live display in it. Lines go above it."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleRenderable

DEFAULT_COLUMNS, WIDEST = 80, 110  # of a terminal that does not tell its width; of the display
REFRESHED = 2  # times a second
TERMINALS = ("/dev/pts/", "/dev/tty")
LAUNCHERS = ("mpiexec", "mpirun", "hydra", "prte", "orte")


class Screen:
    """A terminal with a display at its bottom, or none. One stream: a line never tears the display."""

    def __init__(self):
        self._console: Console | None = None

    def line(self, text: str) -> None:
        """Print a line above the display."""
        if self._console is None:
            print(text, flush=True, file=sys.stderr if columns() and is_shared() else sys.stdout)
        elif not is_shared():
            print(text, flush=True)
        else:
            from rich.text import Text

            self._console.print(Text(text), soft_wrap=True)

    @contextlib.contextmanager
    def showing(self, render: Callable[[int], ConsoleRenderable]) -> Iterator[None]:
        """Show a display for the time of the context; without a terminal nothing is shown.

        Args:
            render: returns what is to be seen at the moment, at most so many characters wide.
        """
        width = min(columns() - 1, WIDEST)  # a full line would make some terminals begin the next one
        if width < 20 or self._console is not None:
            yield
            return
        from rich.console import Console
        from rich.live import Live

        stream = getattr(sys.stderr, "unguarded", sys.stderr)  # a display moves the cursor, which `terminal` prevents
        console = Console(file=stream, force_terminal=True, width=width, emoji=False, markup=False, highlight=False)
        live = Live(
            get_renderable=lambda: render(width), console=console, transient=True, refresh_per_second=REFRESHED,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        with live:
            console.show_cursor(True)  # a process that is killed could not show it again
            self._console = console
            try:
                yield
            finally:
                self._console = None


@functools.cache
def columns() -> int:
    """Return the width of the terminal at which a person watches, in characters; 0 if there is none.

    It is stderr, or stderr of the MPI launcher to which our stderr is a pipe. Where another program reads our standard
    output (`| tee`), it may write to the same terminal at any time: then nothing is shown that could be torn.
    """
    place = _place()
    return 0 if place is None or _is_read(f"{place}/1") else _columns(f"{place}/2")


def output_width() -> int:
    """Return the width of the terminal to which standard output goes; 0 for a file or a pipe, if COLUMNS is not set.

    Under an MPI launcher it is the launcher's standard output.
    """
    place = _place()
    for output in ("/proc/self/fd/1", f"{place}/1"):
        with contextlib.suppress(OSError):
            if os.readlink(output).startswith(TERMINALS):
                return _columns(output)
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() else 0


@functools.cache
def is_shared() -> bool:
    """Whether standard output and standard error lead to the same terminal."""
    place = _place()
    try:
        return place is not None and os.readlink(f"{place}/1") == os.readlink(f"{place}/2")
    except OSError:
        return False


@functools.cache
def _place() -> str | None:
    """The open files of the process at the terminal, which is this one or its launcher; None without a terminal."""
    if sys.stderr.isatty():
        return "/proc/self/fd"
    pid = os.getppid()
    try:
        while (name := Path(f"/proc/{pid}/comm").read_text().strip()).startswith(LAUNCHERS):
            if os.readlink(f"/proc/{pid}/fd/2").startswith(TERMINALS):
                return f"/proc/{pid}/fd"
            # "pid (name) state ppid ...": only the name may contain spaces and brackets
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(f"({name})")[2].split()[1])
    except OSError:  # no /proc, or a launcher of another user
        pass
    return None


def _is_read(path: str) -> bool:
    """Whether a pipe or a socket is open there."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


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


SCREEN = Screen()  # of this process
