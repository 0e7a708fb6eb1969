"""The world that this process was started in: MPI ranks, or one process."""

from __future__ import annotations

import functools
import importlib.util
import os

from ..errors import RunError
from .ranks import LAUNCHER_MARKS, MPIWorld
from .world import World

# Number of ranks, as launchers report it. The count of the Slurm step is last: under an mpiexec inside a step it counts
# the proxies of mpiexec.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


@functools.cache
def connect() -> World:
    """Return the world of this process: `MPIWorld` under mpiexec or srun, otherwise one process (`World`).

    Raises:
        RunError: a launcher started several processes, but MPI is missing or does not see the other processes.
    """
    n_started = int(next((os.environ[name] for name in _SIZES if name in os.environ), "1"))
    if not any(mark in os.environ for mark in LAUNCHER_MARKS) and n_started <= 1:
        return World()
    if importlib.util.find_spec("mpi4py") is None:
        raise RunError("started by an MPI launcher, but mpi4py is not installed: pip install mpi4py mpich")
    try:
        from mpi4py import MPI
    except RuntimeError as error:
        raise RunError(f"mpi4py found no MPI library ({error}): pip install mpich, or set MPI4PY_LIBMPI") from error
    if MPI.COMM_WORLD.size < n_started:
        raise RunError(
            f"{n_started} tasks were started that do not see each other: each one is alone in a world of "
            f"{MPI.COMM_WORLD.size}. The launcher does not speak this MPI's protocol: use srun --mpi=pmi2 for MPICH "
            "and Intel MPI, --mpi=pmix for Open MPI (srun --mpi=list shows the available ones), or the MPI library's "
            f"own mpiexec. The library: {MPI.Get_library_version().splitlines()[0].strip()}"
        )
    return MPIWorld(MPI)
