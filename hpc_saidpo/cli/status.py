"""Look at the runs under one root: how far each is, and what needs a look.

    hpc-saidpo status /scratch/me/runs
    hpc-saidpo status runs --watch 30
    hpc-saidpo status runs/demo --json

One line a run: finished iterations of all; the stage in progress, or the state
(waiting, stopped, FAILED, complete, SILENT: no sign of life); its chunks (in
the stage policy, optimizer steps) done of all; tokens per second; pair yield
so far; estimated time left (">": without stages that have not been measured
yet); time since the last sign of life; Slurm job; restarts. Below: what a run
waits for, why it ended, and ranks that are silent, with host and chunk.

Reads the run folders only, from any node, while the runs work.
Exits 0, or 2 where there is no run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .. import terminal
from ..errors import RunError
from .help import parser

WATCH_S = 10.0


def main(arguments: Sequence[str]) -> int:
    """Print the state of every run. Returns the exit code."""
    options = parser("status", __doc__)
    options.add_argument("root", type=Path, help="the folder that holds the runs (run.root), or one run")
    options.add_argument(
        "--watch", type=float, nargs="?", const=WATCH_S, metavar="S", help=f"again every S seconds ({WATCH_S:.0f})"
    )
    options.add_argument("--json", action="store_true", help="print a list of objects, times in seconds")
    values = options.parse_args(arguments)
    from ..report.status import read_states, table  # help does not need it

    try:
        while True:
            states = read_states(values.root)
            text = json.dumps([asdict(state) for state in states], indent=1) if values.json else table(states)
            if values.watch and sys.stdout.isatty():
                terminal.clear()
            print(text, flush=True)
            if not values.watch:
                return 0
            time.sleep(values.watch)
    except RunError as error:
        terminal.complain("status", error)
        return 2
    except KeyboardInterrupt:
        return 0
