"""CPU threads of a rank."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence


def n_threads(core_L: Sequence[Collection[int]], environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of threads for each rank of a node.

    OMP_NUM_THREADS decides if it is set. Otherwise the ranks share the cores that any of them may use: a launcher binds
    each rank to cores of its own, or all of them to the same ones. Slurm's cores per task are an upper limit, because
    on many sites nothing binds a task to its cores.

    Args:
        core_L: numbers of the cores that each rank of the node may use.
    """
    requested = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if requested.isdigit() and int(requested) > 0:
        return int(requested)
    n = len(set().union(*core_L)) // len(core_L)
    per_task = environment.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min(n, int(per_task)) if per_task.isdigit() else n)
