"""What the program prints: no text from outside can move the cursor, reverse a line, or fill the screen."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from .errors import visible

MESSAGE_CHARS = 10_000  # characters of one message, until run.message_chars is known
_longest = MESSAGE_CHARS


class Guarded:
    """A text stream that writes the control characters of a text as escapes. Line breaks pass.

    Attributes:
        raw: the stream itself, for control characters of this program.
    """

    def __init__(self, raw: TextIO):
        self.raw = raw

    def write(self, text: str) -> int:
        """Write a text. Returns its length."""
        self.raw.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def guard() -> None:
    """Let this process print control characters as escapes, whoever prints them. May be called again."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Guarded):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # for a terminal that has no such letter
            setattr(sys, name, Guarded(stream))


def raw(stream: TextIO) -> TextIO:
    """Return a stream that passes control characters, for progress bars."""
    return stream.raw if isinstance(stream, Guarded) else stream


def clear() -> None:
    """Clear the terminal of standard output, and go to its upper left corner."""
    raw(sys.stdout).write("\x1b[H\x1b[2J")


def limit_messages(characters: int) -> None:
    """Set the length of a message (run.message_chars)."""
    global _longest
    _longest = characters


def message(text: str) -> str:
    """Return a message as a terminal or a log shows it: `visible`, in one or more lines.

    A long one lacks its middle: it begins with the problem, and ends with what to do.
    """
    if len(text) > _longest:
        n_last = _longest // 4
        cut = f" ... ({len(text):,} characters, cut at run.message_chars={_longest:,}) ... "
        text = f"{text[: _longest - n_last]}{cut}{text[-n_last:]}"
    return visible(text)


def complain(program: str, problem: object) -> None:
    """Print a message to standard error, with the name of the program before it."""
    print(f"{program}: {message(str(problem))}", file=sys.stderr, flush=True)
