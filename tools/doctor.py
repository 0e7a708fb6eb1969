#!/usr/bin/env python3
"""A preflight on the nodes of a job: is everything as the run with this configuration needs it?

    srun --mpi=pmi2 python -m mpi4py tools/doctor.py experiment=paper_qwen7b pool.path=... [--json FILE]
    mpiexec -n 2 python -m mpi4py tools/doctor.py experiment=demo

Takes under a minute. Prints a line for each thing looked at: ok, warning or failure, with what to do. On a GPU node
each GPU path is run once and compared with the CPU. Exits 0 when there is no failure, else 1; 2 on a wrong command.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
os.environ.setdefault("MPIR_CVAR_ENABLE_HEAVY_YIELD", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpc_saidpo import config as configuration
from hpc_saidpo.command import failures_end_the_job
from hpc_saidpo.doctor import FAILURE, examine, plain, table
from hpc_saidpo.parallel import connect


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there too")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as the run's")
    arguments = parser.parse_args()
    with failures_end_the_job(None):
        world = connect()
    with failures_end_the_job(world):
        config = configuration.from_overrides(arguments.overrides)
        world.use_threads(1 if config.run.deterministic else config.run.threads)
        findings = examine(world, config)
        if world.is_root:
            print(table(findings), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(plain(findings), indent=1))
        world.barrier()
    return int(any(f.state == FAILURE for f in findings))


if __name__ == "__main__":
    sys.exit(main())
