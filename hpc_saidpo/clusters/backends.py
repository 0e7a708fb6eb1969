"""K-Means from given centres, on the CPU (scikit-learn) or one GPU (cuML): one interface, one way to start.

Both start from the same centres, made on the host (`fit.first_centres`): cuML's own are not repeatable by seed.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy import sparse

from ..records import RunError

MINIBATCH_FROM = 20_000  # vectors, on the CPU: below, whole Lloyd iterations take seconds
MINIBATCH = 4096  # vectors
POLISH = 2  # whole iterations after the mini-batches
BLOCK = 8192  # vectors compared with all centres at once
MAX_ITERATIONS = 300
TOLERANCE = 1e-4  # cuML demands one above 0


@dataclass(frozen=True)
class Partition:
    """What K-Means found: each vector's cluster, and each cluster's centre. A cluster may be empty."""

    label_U: np.ndarray
    centre_CD: np.ndarray

    def inertia(self, vector_UD: np.ndarray, weight_U: np.ndarray) -> float:
        """Sum of weighted squared distances to the own centre; float64, the same arithmetic for every backend."""
        total = 0.0
        for begin in range(0, len(vector_UD), BLOCK):  # a million vectors fit in memory once, not twice
            rows = slice(begin, begin + BLOCK)
            away_BD = vector_UD[rows] - self.centre_CD[self.label_U[rows]]
            total += float(np.einsum("bd,bd,b->", away_BD, away_BD, weight_U[rows], dtype=np.float64))
        return total


class Backend(Protocol):
    name: str

    def why_not(self) -> str:
        """Why it cannot run here; "" where it can. Not an import decides, but a device and a kernel."""

    def fit(self, vector_UD: np.ndarray, weight_U: np.ndarray, centre_CD: np.ndarray, seed: int) -> Partition:
        """K-Means of weighted vectors from the given centres, all float32; a weight of w stands for w repeats."""


class ScikitLearn:
    """Lloyd's algorithm; from MINIBATCH_FROM vectors on mini-batches (Sculley 2010) and POLISH of its own.

    The last ones are not scikit-learn's: on one thread its iteration takes several times that of a product of matrices.
    """

    name = "scikit-learn"

    def __init__(self, device: torch.device):
        pass

    def why_not(self) -> str:
        return ""

    def fit(self, vector_UD, weight_U, centre_CD, seed) -> Partition:
        from sklearn.cluster import KMeans, MiniBatchKMeans
        from sklearn.exceptions import ConvergenceWarning

        how = {"n_clusters": len(centre_CD), "n_init": 1, "random_state": seed}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than clusters: health tells it
            if len(vector_UD) < MINIBATCH_FROM:
                whole = KMeans(init=centre_CD, max_iter=MAX_ITERATIONS, tol=TOLERANCE, **how)
                found = whole.fit(vector_UD, sample_weight=weight_U)
                return Partition(found.labels_.astype(np.int64), found.cluster_centers_)
            rough = MiniBatchKMeans(init=centre_CD, batch_size=MINIBATCH, compute_labels=False, **how)
            centre_CD = rough.fit(vector_UD, sample_weight=weight_U).cluster_centers_
        for _ in range(POLISH):
            centre_CD = means(vector_UD, weight_U, nearest(vector_UD, centre_CD), centre_CD)
        return Partition(nearest(vector_UD, centre_CD), centre_CD)


def nearest(vector_UD: np.ndarray, centre_CD: np.ndarray) -> np.ndarray:
    """The nearest centre of each vector, by blocks: one product of matrices each."""
    half_C = (centre_CD**2).sum(1) / 2
    label_U = np.empty(len(vector_UD), np.int64)
    for begin in range(0, len(vector_UD), BLOCK):
        rows = slice(begin, begin + BLOCK)
        label_U[rows] = (vector_UD[rows] @ centre_CD.T - half_C).argmax(1)
    return label_U


def means(vector_UD: np.ndarray, weight_U: np.ndarray, label_U: np.ndarray, centre_CD: np.ndarray) -> np.ndarray:
    """The weighted mean of each cluster; an empty one keeps its centre."""
    member_UC = sparse.csr_array((weight_U, label_U, np.arange(len(label_U) + 1)), (len(label_U), len(centre_CD)))
    weight_C = np.bincount(label_U, weights=weight_U, minlength=len(centre_CD)).astype(np.float32)
    mean_CD = (member_UC.T @ vector_UD) / np.maximum(weight_C, np.finfo(np.float32).tiny)[:, None]
    return np.where(weight_C[:, None] > 0, mean_CD, centre_CD)


class CuML:
    """Lloyd's algorithm on one GPU. An empty cluster keeps its centre, where scikit-learn gives it another."""

    name = "cuML"

    def __init__(self, device: torch.device):
        self._index = device.index or 0

    def why_not(self) -> str:
        try:
            import cuml  # noqa: F401
            import cupy

            if cupy.cuda.runtime.getDeviceCount() == 0:
                return "no GPU"
            with cupy.cuda.Device(self._index):
                return "" if int(cupy.arange(3).sum()) == 3 else "a kernel of cupy gave a wrong sum"
        except (ImportError, RuntimeError) as error:  # cupy's CUDARuntimeError is a RuntimeError
            return str(error)

    @staticmethod
    def arguments(centre_CD: np.ndarray, seed: int) -> dict:
        """What cuml.cluster.KMeans is made with; keywords only."""
        return {
            "n_clusters": len(centre_CD),
            "init": centre_CD,
            "n_init": 1,  # its default for given centres is 10, all alike
            "max_iter": MAX_ITERATIONS,
            "tol": TOLERANCE,
            "random_state": seed,
            "output_type": "numpy",
        }

    def fit(self, vector_UD, weight_U, centre_CD, seed) -> Partition:
        import cupy
        from cuml.cluster import KMeans

        with cupy.cuda.Device(self._index):
            found = KMeans(**self.arguments(centre_CD, seed)).fit(vector_UD, sample_weight=weight_U)
        return Partition(np.asarray(found.labels_, dtype=np.int64), np.asarray(found.cluster_centers_, np.float32))


BACKENDS = {"cpu": ScikitLearn, "gpu": CuML}


def choose(asked: str, device: torch.device) -> tuple[Backend, str]:
    """The backend to use, and why, in words.

    Args:
        asked: auto, cpu or gpu (clusters.backend).

    Raises:
        RunError: clusters.backend=gpu, and it cannot run here.
    """
    if asked == "cpu":
        return ScikitLearn(device), "clusters.backend=cpu"
    gpu = CuML(device)
    why_not = gpu.why_not()
    if not why_not:
        return gpu, "a GPU is there, and runs kernels"
    if asked == "gpu":
        raise RunError(f"clusters.backend=gpu cannot run here ({why_not}): use clusters.backend=auto")
    return ScikitLearn(device), f"cuML cannot run here: {why_not}"
