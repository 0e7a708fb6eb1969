"""A preflight on the nodes of a job: is everything as the run with this configuration needs it?

    srun --mpi=pmi2 python -m mpi4py -m hpc_saidpo doctor experiment=paper_qwen7b pool.path=... [--json FILE]
    mpiexec -n 2 python -m mpi4py -m hpc_saidpo doctor experiment=demo

Takes under a minute. Prints a line for each thing looked at: ok, warning or failure, with what to do. On a GPU node
each GPU path is run once and compared with the CPU. Exits 0 when there is no failure, else 1; 2 on a wrong command.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..doctor.finding import FAILURE, plain, table
from ..parallel.launch import connect
from .compose import from_overrides
from .failures import failures_end_the_job


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo doctor", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there too")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as the run's")
    asked = parser.parse_args(arguments)
    with failures_end_the_job(None):
        world = connect()
    with failures_end_the_job(world):
        config = from_overrides(asked.overrides)
        from ..doctor.examine import examine  # seconds: only when the configuration is right

        world.use_threads(1 if config.run.deterministic else config.run.threads)
        findings = examine(world, config)
        if world.is_root:
            print(table(findings), flush=True)
            if asked.json:
                asked.json.write_text(json.dumps(plain(findings), indent=1))
        world.barrier()
    return int(any(f.state == FAILURE for f in findings))
