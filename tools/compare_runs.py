#!/usr/bin/env python3
"""Compare the runs under one root: means over seeds, tables, curves, and what is unfinished or damaged.

    python tools/compare_runs.py /scratch/me/runs
    python tools/compare_runs.py runs/probe --by probe.fraction
    python tools/compare_runs.py runs --by clusters.n --by sampler.rule --out comparison

Runs that have the same values of the settings given by --by make one row: mean and 95 % interval of accuracy before and
after, gain, pair yield, rollout tokens, tokens per usable pair, and, where difficulty.order is compared, of the rank
correlation of its proxies with the pass rate. Without --by, these are all settings in which the runs differ, but seeds.

Reads the runs in ROOT and the stand-alone evaluations in ROOT/evaluate; writes comparison.csv, sweep.csv (the runs),
evaluations.csv, sweep.png and sweep.html. Exits 0 when they are written, whatever they tell, and 2 when something has
to be mended first.
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
    parser.add_argument(
        "--by", metavar="KEY", action="append", default=[], help="a setting to compare by, as clusters.n"
    )
    parser.add_argument("--out", type=Path, help="the folder to write to; default: ROOT/sweep")
    arguments = parser.parse_args()
    try:
        found = sweep.read(arguments.root, arguments.by)
        paths = sweep.write(found, arguments.out or arguments.root / "sweep")
    except RunError as error:
        print(f"compare_runs: {error}", file=sys.stderr)
        return 2
    print(sweep.text(found))
    print("\n" + "\n".join(map(str, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
