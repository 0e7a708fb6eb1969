"""Check the nodes of a job before the job: does a run find all that it needs?

    srun --mpi=pmi2 python -m mpi4py -m hpc_saidpo doctor \\
        experiment=paper_qwen7b pool.path=... --json findings.json
    mpiexec -n 2 python -m mpi4py -m hpc_saidpo doctor experiment=demo

Takes under a minute. Prints one line for each check: ok, warning or failure,
with a remedy. On a GPU node each GPU code path is run once and compared with
the CPU.
Exits 0 when no check fails, 1 when one fails, 2 on a wrong command.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .help import parser


def main(arguments: Sequence[str]) -> int:
    """Examine the nodes and print the findings. Returns the exit code. Collective."""
    options = parser("doctor", __doc__)
    options.add_argument("--json", type=Path, metavar="FILE", help="write the findings to this file, too")
    options.add_argument("overrides", nargs="*", help="the overrides of the run")
    values = options.parse_intermixed_args(arguments)
    from ..doctor.finding import FAILURE, plain, table
    from ..parallel.launch import connect
    from .compose import from_overrides
    from .failures import failures_end_the_job

    with failures_end_the_job(None):
        world = connect()
    with failures_end_the_job(world):
        config = from_overrides(values.overrides)
        from ..doctor.examine import examine  # takes seconds: only when the configuration is valid

        world.use_threads(1 if config.run.deterministic else config.run.threads)
        findings = examine(world, config)
        if world.is_root:
            print(table(findings), flush=True)
            if values.json:
                values.json.write_text(json.dumps(plain(findings), indent=1))
        world.barrier()
    return int(any(f.state == FAILURE for f in findings))
