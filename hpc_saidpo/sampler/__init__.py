"""Evidence of clusters and questions -> drawing weights -> drawn questions (README, method steps 3 and 4).

Needs neither MPI, torch nor Hydra. `Sampler` is the whole of it as one object; the functions are its parts.
"""

from .draw import draw
from .history import History, count, excluded
from .inclusion import inclusion
from .sampler import Sampler
from .settings import Config
from .weights import UTILITIES, cluster_weights, entropy_share, events, posterior_rate, weights

__all__ = [
    "UTILITIES",
    "Config",
    "History",
    "Sampler",
    "cluster_weights",
    "count",
    "draw",
    "entropy_share",
    "events",
    "excluded",
    "inclusion",
    "posterior_rate",
    "weights",
]
