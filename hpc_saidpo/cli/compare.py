"""Compare the runs under one root: means over seeds, tables, curves, and a list of unfinished or damaged runs.

    hpc-saidpo compare /scratch/me/runs
    hpc-saidpo compare runs/probe --by probe.fraction
    hpc-saidpo compare runs --by clusters.n --by sampler.rule --out comparison

Runs that have the same values of the settings of --by make one row: mean and 95 % interval of accuracy before and
after, gain, pair yield, rollout tokens, tokens per usable pair, and, where difficulty.order is compared, of the rank
correlation of its proxies with the pass rate. Without --by, the settings are all in which the runs differ, but seeds.

Reads the runs in ROOT and the stand-alone evaluations in ROOT/evaluate. Writes comparison.csv, sweep.csv (the runs),
evaluations.csv, sweep.png and sweep.html. Exits 0 when the files are written, even if runs are damaged, and 2 when
there is no run, no such setting, or the files cannot be written.
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
    """Print the comparison and write its files. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo compare", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="the folder that holds the runs (run.root)")
    parser.add_argument(
        "--by", metavar="KEY", action="append", default=[], help="compare by this setting, for example clusters.n"
    )
    parser.add_argument("--out", type=Path, help="the folder for the files; default: ROOT/sweep")
    parsed = parser.parse_args(arguments)
    try:
        sweep = read_runs(parsed.root, parsed.by)
        paths = write(sweep, parsed.out or parsed.root / "sweep")
    except RunError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    print(text(sweep))
    print("\n" + "\n".join(map(str, paths)))
    return 0
