"""Compare the runs under one root: means over seeds, tables, curves, and what is unfinished or damaged.

    hpc-saidpo compare /scratch/me/runs
    hpc-saidpo compare runs/probe --by probe.fraction
    hpc-saidpo compare runs --by clusters.n --by sampler.rule --out comparison

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
from collections.abc import Sequence
from pathlib import Path

from ..compare.read import read_runs
from ..compare.tables import text, write
from ..errors import RunError


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo compare", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="the folder that holds the runs (run.root)")
    parser.add_argument(
        "--by", metavar="KEY", action="append", default=[], help="a setting to compare by, as clusters.n"
    )
    parser.add_argument("--out", type=Path, help="the folder to write to; default: ROOT/sweep")
    asked = parser.parse_args(arguments)
    try:
        found = read_runs(asked.root, asked.by)
        paths = write(found, asked.out or asked.root / "sweep")
    except RunError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(text(found))
    print("\n" + "\n".join(map(str, paths)))
    return 0
