"""Compare the runs under one root: means over seeds, tables, curves, problems.

    hpc-saidpo compare /scratch/me/runs
    hpc-saidpo compare runs --baseline idpo
    hpc-saidpo compare runs/probe --by probe.fraction
    hpc-saidpo compare runs --by clusters.n --by sampler.rule --out comparison

Runs with the same values of the settings in --by make one row, a system. It has
the mean and the 95 % interval of accuracy before and after, gain, pair yield,
rollout tokens, tokens per usable pair, and hours. Where difficulty.order is
compared, it also has the rank correlation of each difficulty proxy with the
pass rate. Without --by, runs are compared by all settings that differ, except
seeds. Systems are named after their runs, or by KEY=VALUE.
The first line says by how much the best system is above --baseline (a system's
name, or KEY=VALUE; default: the one with uniform sampling, or the first of
two): the mean difference between runs of one seed, and its 95 % interval.
Of copies and repeats of a run (same configuration and seed) one counts. A line
names each package that grades or generates and whose version differs.

Reads the runs in ROOT, and the stand-alone evaluations in ROOT and
ROOT/evaluate. Writes sweep.html, and as numbers comparison.csv, paired.csv,
sweep.csv (the runs) and evaluations.csv.
Exits 0 when they are written, 2 on a problem that you can solve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError, shown
from ..screen import output_width
from ..terminal import complain
from .help import parser


def main(arguments: Sequence[str]) -> int:
    """Compare the runs, print the tables, write the files. Returns the exit code."""
    options = parser("compare", __doc__)
    options.add_argument("root", type=Path, help="the folder that holds the runs (run.root)")
    options.add_argument(
        "--by", metavar="KEY", action="append", default=[], help="a setting to compare by, such as clusters.n"
    )
    options.add_argument("--baseline", metavar="NAME", help="the system that the others are compared with, by seed")
    options.add_argument("--out", type=Path, help="the folder to write to; default: ROOT/sweep")
    values = options.parse_args(arguments)
    from ..compare.page import write  # imports scipy, which help does not need
    from ..compare.paired import pair
    from ..compare.read import read_runs
    from ..compare.tables import text

    try:
        sweep = read_runs(values.root, values.by)
        pairing = pair(sweep, values.baseline)
    except RunError as error:
        complain("compare", error)
        return 2
    try:
        paths = write(sweep, pairing, values.out or values.root / "sweep")
    except RunError as error:
        complain("compare", f"{error}. Here: name another folder by --out")
        return 2
    print(text(sweep, pairing, output_width()))
    print("\n" + "\n".join(map(shown, paths)))
    return 0
