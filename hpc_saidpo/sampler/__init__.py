"""Dynamic Sampler: evidence of clusters and questions -> weights -> drawn questions (method, steps 3 and 4).

Needs neither MPI, torch nor Hydra. `Sampler` is the whole of it as one object, for any training loop.
"""

from .sampler import Sampler

__all__ = ["Sampler"]
