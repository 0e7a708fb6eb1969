"""What the program prints: no text from outside can move the cursor, reverse a line, or fill the screen."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from .errors import message, visible


class Guarded:
    """A text stream that writes the control characters of a text as escapes. Line breaks pass.

    Attributes:
        unguarded: the stream itself, for control characters of this program.
    """

    def __init__(self, stream: TextIO):
        self.unguarded = stream

    def write(self, text: str) -> int:
        """Write a text. Returns its length."""
        self.unguarded.write(visible(text))
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Write several texts."""
        self.write("".join(texts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def guard() -> None:
    """Let this process print control characters as escapes, whoever prints them. May be called again."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Guarded):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # for a terminal that has no such letter
            setattr(sys, name, Guarded(stream))


def clear() -> None:
    """Clear the terminal of standard output, and go to its upper left corner."""
    getattr(sys.stdout, "unguarded", sys.stdout).write("\x1b[H\x1b[2J")


@contextlib.contextmanager
def until_closed() -> Iterator[None]:
    """Print until the reader of standard output leaves, as `head` and a pager do: that is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes the rest when it ends


def complain(program: str, problem: object) -> None:
    """Print a message to standard error, with the name of the program before it."""
    print(f"{program}: {message(str(problem))}", file=sys.stderr, flush=True)
