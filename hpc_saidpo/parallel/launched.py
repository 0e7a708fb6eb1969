"""Facts about this process in the environment variables of its launcher: readable before MPI starts, without imports.

mpiexec, mpirun and srun set these variables for the processes that they start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# Rank of a process. Slurm's variable also exists in a job script, so it does not prove a launcher.
MARKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID")
RANKS = (*MARKS, "SLURM_PROCID")
# Number of processes. The count of the Slurm step is last: under an mpiexec inside a step it counts the proxies of
# mpiexec.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return the rank that the launcher gave this process; 0 without a launcher."""
    return int(next((environment[name] for name in RANKS if name in environment), "0"))


def size(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes that the launcher started; 1 without a launcher."""
    return int(next((environment[name] for name in SIZES if name in environment), "1"))


def marks(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the variables that prove an MPI launcher."""
    return [name for name in MARKS if name in environment]


def unused_tasks(n_ranks: int, environment: Mapping[str, str] = os.environ) -> str:
    """Return a message if one process runs alone in a Slurm allocation of several tasks; "" otherwise.

    Args:
        n_ranks: size of the world.
    """
    n_tasks = environment.get("SLURM_NTASKS", "")
    if n_ranks > 1 or not n_tasks.isdigit() or int(n_tasks) <= 1:
        return ""
    return (
        f"one process in a Slurm allocation of {n_tasks} tasks: the others do nothing. Start the ranks with "
        "srun --mpi=pmi2 (Open MPI: --mpi=pmix), or with mpiexec -n"
    )
