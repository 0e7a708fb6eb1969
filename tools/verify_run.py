#!/usr/bin/env python3
"""Check a run folder: every file read, every checksum compared.

    python tools/verify_run.py runs/demo
    python tools/verify_run.py runs/demo --repair

Exits 0 when everything is sound, 1 when something is damaged, 2 when the check could not be made. --repair sets damaged
files aside as NAME.damaged-1, so that starting the run again makes their chunks again, and nothing else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from hpc_saidpo.records import RunError
from hpc_saidpo.store.check import check, repair


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--repair", action="store_true", help="set damaged files aside")
    arguments = parser.parse_args()
    try:
        report = check(arguments.run)
        print(
            f"{arguments.run}: {report.n_stages} stages ({report.n_unfinished} unfinished), {report.n_files} files, "
            f"{report.n_rollouts:,} rollouts; {len(report.findings)} damaged"
        )
        if report.n_temporary:
            print(f"  {report.n_temporary} unfinished temporary files: not counted, removed by the next start")
        for finding in report.findings:
            print(f"  {finding.path}: {finding.what}\n    {finding.remedy}")
        if arguments.repair:
            for old, new in repair(arguments.run, report.findings):
                print(f"  set aside: {old} -> {new.name}")
    except RunError as error:
        print(f"verify_run: {error}", file=sys.stderr)
        return 2
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
