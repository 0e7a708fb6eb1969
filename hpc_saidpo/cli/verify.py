"""Check a run folder: read every file, compare every checksum.

    hpc-saidpo verify runs/demo
    hpc-saidpo verify runs/demo --repair

--repair renames damaged files to NAME.damaged-1. The next start of the run
makes their chunks again, and nothing else.
Exits 0 when no file is damaged, 1 when one is, 2 when the check is impossible.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError, shown
from ..store.check import check, repair
from ..terminal import complain
from .help import parser


def main(arguments: Sequence[str]) -> int:
    """Check the run folder and print the damaged files. Returns the exit code."""
    options = parser("verify", __doc__)
    options.add_argument("run", type=Path, help="the run folder")
    options.add_argument("--repair", action="store_true", help="rename damaged files")
    values = options.parse_args(arguments)
    try:
        report = check(values.run)
        print(
            f"{shown(values.run)}: {report.n_stages} stages ({report.n_unfinished} unfinished), "
            f"{report.n_files} files, {report.n_rollouts:,} rollouts; {len(report.findings)} damaged"
        )
        if report.n_temporary:
            print(f"  {report.n_temporary} unfinished temporary files: not counted, removed by the next start")
        for finding in report.findings:
            print(f"  {shown(finding.path)}: {shown(finding.problem)}\n    {shown(finding.remedy)}")
        if values.repair:
            for old, new in repair(values.run, report.findings):
                print(f"  renamed: {shown(old)} -> {shown(new.name)}")
    except RunError as error:
        complain("verify", error)
        return 2
    return 1 if report.findings else 0
