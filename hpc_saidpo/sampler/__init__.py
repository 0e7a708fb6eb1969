"""Dynamic Sampler: evidence of clusters and questions -> weights -> drawn questions (method, steps 3 and 4).

It needs no MPI, torch or Hydra. `Sampler` is all of it as one object, for any training loop.
"""

from .sampler import Sampler

__all__ = ["Sampler"]
