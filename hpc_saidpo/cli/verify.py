"""Check a run folder: every file read, every checksum compared.

    hpc-saidpo verify runs/demo
    hpc-saidpo verify runs/demo --repair

Exits 0 when everything is sound, 1 when something is damaged, 2 when the check could not be made. --repair sets damaged
files aside as NAME.damaged-1, so that starting the run again makes their chunks again, and nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError
from ..store.check import check, repair


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo verify", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--repair", action="store_true", help="set damaged files aside")
    asked = parser.parse_args(arguments)
    try:
        report = check(asked.run)
        print(
            f"{asked.run}: {report.n_stages} stages ({report.n_unfinished} unfinished), {report.n_files} files, "
            f"{report.n_rollouts:,} rollouts; {len(report.findings)} damaged"
        )
        if report.n_temporary:
            print(f"  {report.n_temporary} unfinished temporary files: not counted, removed by the next start")
        for finding in report.findings:
            print(f"  {finding.path}: {finding.problem}\n    {finding.remedy}")
        if asked.repair:
            for old, new in repair(asked.run, report.findings):
                print(f"  set aside: {old} -> {new.name}")
    except RunError as error:
        print(f"verify: {error}", file=sys.stderr)
        return 2
    return 1 if report.findings else 0
