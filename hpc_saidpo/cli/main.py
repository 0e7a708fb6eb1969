"""The command line: `hpc-saidpo [VERB] ...`, the same as `python -m hpc_saidpo [VERB] ...`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from .. import __version__, imports, terminal
from ..parallel import launched, stop
from . import environment  # noqa: F401 - sets environment variables before anything else is imported

EXIT_INTERRUPTED = 130  # as shells report a Ctrl-C: 128 plus the number of SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb, `run` if none is named. Returns the exit code.

    Args:
        arguments: words of the command line; None for those of this process.
    """
    terminal.guard()
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = words[0] if words else ""
    is_run = "=" in first or first.startswith("-") or first in ("", "run")
    if is_run or first == "evaluate":
        stop.REQUEST.listen_from_start(is_rank=bool(launched.marks()))  # before the imports, which take seconds
    from .help import VERBS, overview, show

    if first in ("-h", "--help", "help"):
        show(overview())
        return 0
    if first in ("-V", "--version", "version"):
        show(f"hpc_saidpo {__version__}")
        return 0
    close_stdin(first)
    is_verb = first in VERBS
    if not is_verb and not is_run:
        show(f"hpc_saidpo: {unknown_verb(first)}", sys.stderr)
        return 2
    verb, rest = (first, words[1:]) if is_verb else ("run", words)
    with imports.of_large_libraries():
        module = importlib.import_module(f"hpc_saidpo.cli.{verb}")
    try:
        return module.main(rest)
    except KeyboardInterrupt:  # of a verb that keeps no work; `run` and `evaluate` handle Ctrl-C themselves
        return EXIT_INTERRUPTED


def close_stdin(verb: str) -> None:
    """Let stdin be empty: no library shall wait for a person's answer, on every rank.

    `grade` may read its file there. A debugger (README.md, "How to debug") needs it.
    """
    if verb == "grade" or "bdb" in sys.modules:
        return
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    if nothing:  # else stdin was closed, and has the number now
        os.close(nothing)


def unknown_verb(word: str) -> str:
    """Return the message about a first word that is neither a verb nor an override: the nearest verb, and all verbs."""
    from .help import VERBS

    if "." in word:
        return f"{word!r} is no override (KEY=VALUE): write no blanks around the =, as in rollouts.k=4"
    near = difflib.get_close_matches(word, VERBS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return (
        f"{word!r} is neither a verb nor an override (KEY=VALUE){hint} Verbs: {', '.join(VERBS)}. "
        "`hpc-saidpo --help` describes them"
    )
