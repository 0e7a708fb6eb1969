"""Run SAI-DPO: the verb `run`, and what the program does without a verb.

    hpc-saidpo experiment=tiny
    mpiexec -n 2 python -m mpi4py -m hpc_saidpo experiment=demo run.seed=1
    hpc-saidpo -m experiment=tiny clusters.n=6,12

A second start of the same command resumes the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from .help import run_help
from .program import Program, start


def main(arguments: Sequence[str]) -> int:
    """Start the run that the overrides describe; exits with the codes of `program.start`."""
    if {"-h", "--help"} & set(arguments):
        print(run_help("run", __doc__))
        return 0
    start(Program("hpc_saidpo.cli.loop:work"), arguments)
    return 0
