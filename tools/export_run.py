#!/usr/bin/env python3
"""Export what a run has made as one file that other programs read.

    python tools/export_run.py runs/demo --what pairs --format jsonl
    python tools/export_run.py runs/demo --what rollouts --format parquet --out rollouts.parquet --iteration 1

Pairs are in TRL's preference format. Only finished stages are exported. Exits 0 when the file is written, 2 when
something has to be mended first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpc_saidpo.export import COLUMNS, WRITERS, export
from hpc_saidpo.records import RunError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--what", choices=sorted(COLUMNS), required=True)
    parser.add_argument("--format", choices=sorted(WRITERS), required=True)
    parser.add_argument("--out", type=Path, help="the file to write; default: RUN-WHAT.FORMAT in the current folder")
    parser.add_argument("--iteration", type=int, help="only this one; default: all")
    arguments = parser.parse_args()
    out = arguments.out or Path(f"{arguments.run.resolve().name}-{arguments.what}.{arguments.format}")
    try:
        n = export(arguments.run, arguments.what, arguments.format, out, arguments.iteration)
    except RunError as error:
        print(f"export_run: {error}", file=sys.stderr)
        return 2
    print(f"{n:,} rows of {arguments.what} -> {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
