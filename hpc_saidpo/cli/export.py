"""Write the pairs, rollouts or metrics of a run for other programs.

    hpc-saidpo export runs/demo --what pairs --format jsonl
    hpc-saidpo export runs/demo --what rollouts --format parquet \\
        --out rollouts.parquet --iteration 1
    hpc-saidpo export runs/demo --what metrics --format tensorboard

Pairs are in TRL's preference format. Rollouts have question, gold answer,
extracted answer and verdict, those of evaluations too. Both: jsonl or parquet,
of finished stages. Metrics are those of finished iterations: csv has a row for
each; tensorboard is a folder of event files, wandb a folder with an offline run
of Weights & Biases, both with every optimizer step. Nothing is sent.
Exits 0 when all is written, 2 on a problem that you can solve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError, shown
from ..report.export import COLUMNS, WRITERS, export
from ..report.scalars import WRITERS as SCALARS
from ..store.contents import lacking
from ..terminal import complain
from .help import parser

METRICS = "metrics"


def main(arguments: Sequence[str]) -> int:
    """Export and print the number of rows. Returns the exit code."""
    options = parser("export", __doc__)
    options.add_argument("run", type=Path, help="the run folder")
    options.add_argument("--what", choices=[*sorted(COLUMNS), METRICS], required=True, help="what to write")
    options.add_argument("--format", choices=sorted([*WRITERS, *SCALARS]), required=True, help="the format")
    options.add_argument("--out", type=Path, help="file or folder; default: RUN-WHAT.FORMAT in the current folder")
    options.add_argument("--iteration", type=int, help="export only this iteration; default: all")
    values = options.parse_args(arguments)
    out = values.out or Path(f"{values.run.resolve().name}-{values.what}.{values.format}")
    of_what = SCALARS if values.what == METRICS else WRITERS
    if values.format not in of_what:
        complain("export", f"--what {values.what} has the formats {', '.join(sorted(of_what))}, not {values.format}")
        return 2
    try:
        if values.what == METRICS:
            n = SCALARS[values.format](values.run, out, values.iteration)
            print(f"metrics of {n:,} iterations -> {shown(out)}")
            return 0
        if lack := lacking(values.run):
            complain("export", lack)
        n = export(values.run, values.what, values.format, out, values.iteration)
    except RunError as error:
        complain("export", error)
        return 2
    print(f"{n:,} rows of {values.what} -> {shown(out)}")
    return 0
