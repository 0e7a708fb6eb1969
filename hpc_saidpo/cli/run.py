"""Run SAI-DPO: the verb `run`, and the program without a verb.

    hpc-saidpo experiment=tiny
    mpiexec -n 2 python -m mpi4py -m hpc_saidpo experiment=demo run.seed=1
    hpc-saidpo -m experiment=tiny clusters.n=6,12
    hpc-saidpo --dry-run experiment=tiny
    hpc-saidpo run --config runs/tiny/config.yaml

--dry-run does the checks of a start and shows the plan: the pool, the first
prompt, one rollout of a small model, times, disk and memory. Nothing is kept.

--config starts from files with whole configurations, without overrides: those
of a run, or those that a submission to Slurm writes.

The same command, started again, resumes the run.
Exit codes: 0 complete; 1 a bug; 2 wrong input; 3 a failure signature ended the
run; 75 stopped by a signal, the same command resumes.
"""

from __future__ import annotations

from collections.abc import Sequence

from .help import run_help, show

DRY_RUN = "--dry-run"


def main(arguments: Sequence[str]) -> int:
    """Start the run that the overrides describe. Returns the exit code of `program.start`."""
    if {"-h", "--help"} & set(arguments):
        show(run_help("run", __doc__))
        return 0
    if DRY_RUN in arguments:
        from .dry_run import main as show_plan

        return show_plan([word for word in arguments if word != DRY_RUN])
    from .program import Program, start  # imports Hydra, which help does not need

    return start(Program("hpc_saidpo.cli.loop:work"), arguments)
