"""The world that this process was started in: MPI ranks, or one process."""

from __future__ import annotations

import functools
import importlib.util

from ..errors import RunError
from . import launched, stop
from .ranks import MPIWorld
from .world import World


@functools.cache
def connect() -> World:
    """Return the world of this process: `MPIWorld` under mpiexec or srun, otherwise one process (`World`).

    Its request to stop is that of the process (`stop.REQUEST`). If the process listens to signals already, a signal
    now ends all ranks.

    Raises:
        RunError: a launcher started several processes, but MPI is missing or does not see the other processes.
    """
    world = _connected()
    world.stop_request = stop.REQUEST
    if stop.REQUEST.is_listening:
        world.listen(None)
    return world


def _connected() -> World:
    n_started = launched.size()
    if not launched.marks() and n_started <= 1:
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
