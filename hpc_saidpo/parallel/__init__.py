"""The ranks: the only package that imports mpi4py or torch.distributed.

MPI carries facts, the disk carries data, NCCL (Gloo on CPU) carries gradients. Every rank calls every collective.

torch is imported where it is used: it takes seconds, and 200 MB a rank, that handing out work does without.
"""

from .launch import connect
from .ranks import MPIWorld
from .stop import Stopped
from .world import EXIT_STOPPED, World, drain

__all__ = ["EXIT_STOPPED", "MPIWorld", "Stopped", "World", "connect", "drain"]
