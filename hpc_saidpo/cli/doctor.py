"""Check before a job that its nodes have everything that the run with this configuration needs.

    srun --mpi=pmi2 python -m mpi4py -m hpc_saidpo doctor experiment=paper_qwen7b pool.path=... [--json FILE]
    mpiexec -n 2 python -m mpi4py -m hpc_saidpo doctor experiment=demo

Takes under a minute. Prints one line for each check: ok, warning or failure, and a remedy. On a node with a GPU, each
GPU path runs once and is compared with the CPU. Exits 0 without a failure, 1 with one, 2 on a wrong command.
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
    """Make every check and print the findings. Returns the exit code. Collective."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="hpc-saidpo doctor", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings to this file")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, the same as for the run")
    parsed = parser.parse_args(arguments)
    with failures_end_the_job(None):
        world = connect()
    with failures_end_the_job(world):
        config = from_overrides(parsed.overrides)
        # torch and transformers take seconds to import: a wrong override is reported before that.
        from ..doctor.examine import examine

        world.use_threads(1 if config.run.deterministic else config.run.threads)
        findings = examine(world, config)
        if world.is_root:
            print(table(findings), flush=True)
            if parsed.json:
                parsed.json.write_text(json.dumps(plain(findings), indent=1))
        world.barrier()
    return int(any(f.state == FAILURE for f in findings))
