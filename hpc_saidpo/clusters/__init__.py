"""Knowledge points -> embeddings -> the K-Means cluster of each question (README, method steps 0.2 and 0.3)."""

from .backends import BACKENDS, choose
from .embed import Embedding, chunks, embed, load, texts, weights_hash
from .fit import ALGORITHM, Assignment, Found, first_centres, fit
from .health import health, told
from .settings import Config
from .sweep import suggest, sweep

__all__ = [
    "ALGORITHM", "BACKENDS", "Assignment", "Config", "Embedding", "Found", "choose", "chunks", "embed", "first_centres",
    "fit", "health", "load", "suggest", "sweep", "texts", "told", "weights_hash",
]  # fmt: skip
