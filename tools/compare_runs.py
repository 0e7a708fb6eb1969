#!/usr/bin/env python3
"""Compare the runs under one root: tables, curves, and what is unfinished or damaged.

    python tools/report_sweep.py /scratch/me/runs
    python tools/report_sweep.py runs --out report

Reads the runs in ROOT and the stand-alone evaluations in ROOT/evaluate; writes sweep.csv, evaluations.csv, sweep.png
and sweep.html. Exits 0 when they are written, whatever they tell, and 2 when something has to be mended first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpc_saidpo import sweep
from hpc_saidpo.records import RunError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="the folder that holds the runs (run.root)")
    parser.add_argument("--out", type=Path, help="the folder to write to; default: ROOT/sweep")
    arguments = parser.parse_args()
    try:
        found = sweep.read(arguments.root)
        paths = sweep.write(found, arguments.out or arguments.root / "sweep")
    except RunError as error:
        print(f"report_sweep: {error}", file=sys.stderr)
        return 2
    print(sweep.text(found))
    print("\n" + "\n".join(map(str, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
