"""Evidence of clusters and questions -> drawing weights -> drawn questions (README, method steps 3 and 4).

Needs neither MPI, torch nor Hydra. `Sampler` is the whole of it as one object; the functions are its parts.
"""

from .betabinomial import fit
from .draw import draw
from .evidence import chances, of_clusters, of_questions
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
    "chances",
    "cluster_weights",
    "count",
    "draw",
    "entropy_share",
    "events",
    "excluded",
    "fit",
    "inclusion",
    "of_clusters",
    "of_questions",
    "posterior_rate",
    "weights",
]
