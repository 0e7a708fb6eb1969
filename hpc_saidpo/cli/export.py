"""Write the pairs or rollouts of a run as one file that other programs read.

    hpc-saidpo export runs/demo --what pairs --format jsonl
    hpc-saidpo export runs/demo --what rollouts --format parquet \\
        --out rollouts.parquet --iteration 1

Pairs are in TRL's preference format. Only finished stages are exported.
Exits 0 when the file is written, 2 on a problem that you can solve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError, shown
from ..report.export import COLUMNS, WRITERS, export
from ..store.stage import lacking
from ..terminal import complain
from .help import parser


def main(arguments: Sequence[str]) -> int:
    """Export and print the number of rows. Returns the exit code."""
    options = parser("export", __doc__)
    options.add_argument("run", type=Path, help="the run folder")
    options.add_argument("--what", choices=sorted(COLUMNS), required=True, help="the table to write")
    options.add_argument("--format", choices=sorted(WRITERS), required=True, help="the format of the file")
    options.add_argument("--out", type=Path, help="the file to write; default: RUN-WHAT.FORMAT in the current folder")
    options.add_argument("--iteration", type=int, help="export only this iteration; default: all")
    values = options.parse_args(arguments)
    out = values.out or Path(f"{values.run.resolve().name}-{values.what}.{values.format}")
    try:
        if lack := lacking(values.run):
            complain("export", lack)
        n = export(values.run, values.what, values.format, out, values.iteration)
    except RunError as error:
        complain("export", error)
        return 2
    print(f"{n:,} rows of {values.what} -> {shown(out)}")
    return 0
