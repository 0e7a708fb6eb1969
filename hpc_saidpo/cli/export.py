"""Export what a run has made as one file that other programs read.

    hpc-saidpo export runs/demo --what pairs --format jsonl
    hpc-saidpo export runs/demo --what rollouts --format parquet --out rollouts.parquet --iteration 1

Pairs are in TRL's preference format. Only finished stages are exported. Exits 0 when the file is written, 2 when
something has to be mended first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError
from ..report.export import COLUMNS, WRITERS, export


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo export", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--what", choices=sorted(COLUMNS), required=True)
    parser.add_argument("--format", choices=sorted(WRITERS), required=True)
    parser.add_argument("--out", type=Path, help="the file to write; default: RUN-WHAT.FORMAT in the current folder")
    parser.add_argument("--iteration", type=int, help="only this one; default: all")
    asked = parser.parse_args(arguments)
    out = asked.out or Path(f"{asked.run.resolve().name}-{asked.what}.{asked.format}")
    try:
        n = export(asked.run, asked.what, asked.format, out, asked.iteration)
    except RunError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    print(f"{n:,} rows of {asked.what} -> {out}")
    return 0
