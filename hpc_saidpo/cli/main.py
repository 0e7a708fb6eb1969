"""The command line: `hpc-saidpo [VERB] ...`, the same as `python -m hpc_saidpo [VERB] ...`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from .. import __version__
from . import environment  # noqa: F401 - sets environment variables before anything else is imported
from .help import VERBS, overview


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb, `run` if none is named. Returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = words[0] if words else ""
    if first in ("-h", "--help", "help"):
        print(overview())
        return 0
    if first in ("-V", "--version", "version"):
        print(f"hpc_saidpo {__version__}")
        return 0
    verb, rest = (first, words[1:]) if first in VERBS else ("run", words)
    if verb == "run" and first and not first.startswith("-") and "=" not in first and first not in VERBS:
        print(
            f"hpc_saidpo: {first!r} is neither a verb nor an override (KEY=VALUE). Verbs: {', '.join(VERBS)}",
            file=sys.stderr,
        )
        return 2
    return importlib.import_module(f"hpc_saidpo.cli.{verb}").main(rest)
