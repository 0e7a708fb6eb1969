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

from ..errors import RunError

SAMPLED_FROM = 20_000  # vectors, on the CPU: below, Lloyd's algorithm on all of them takes seconds
SAMPLE = 192  # vectors per cluster
SETTLED = 1e-3  # relative fall of the sample's inertia in an iteration
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
    """Lloyd's algorithm. From SAMPLED_FROM vectors on its iterations see a sample until they settle, the last one all.

    Those iterations are not scikit-learn's, one of which takes several times a product of matrices on one thread.
    """

    name = "scikit-learn"

    def __init__(self, device: torch.device):
        pass

    def why_not(self) -> str:
        return ""

    def fit(self, vector_UD, weight_U, centre_CD, seed) -> Partition:
        if len(vector_UD) < SAMPLED_FROM:
            return self._on_all(vector_UD, weight_U, centre_CD, seed)
        row_S, weight_S = sampled(weight_U, SAMPLE * len(centre_CD), seed)
        centre_CD = lloyd(vector_UD[row_S], weight_S, centre_CD)
        centre_CD = means(vector_UD, weight_U, nearest(vector_UD, centre_CD)[0], centre_CD)
        return Partition(nearest(vector_UD, centre_CD)[0], centre_CD)

    @staticmethod
    def _on_all(vector_UD, weight_U, centre_CD, seed) -> Partition:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than clusters: health tells it
            found = KMeans(
                len(centre_CD), init=centre_CD, n_init=1, max_iter=MAX_ITERATIONS, tol=TOLERANCE, random_state=seed
            ).fit(vector_UD, sample_weight=weight_U)
        return Partition(found.labels_.astype(np.int64), found.cluster_centers_)


def sampled(weight_U: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stand for all of them, and their weights: n draws by weight; all rows where they are no more than n."""
    if len(weight_U) <= n:
        return np.arange(len(weight_U)), weight_U
    share_U = weight_U / weight_U.sum(dtype=np.float64)
    drawn_U = np.bincount(np.random.default_rng(seed).choice(len(weight_U), n, p=share_U), minlength=len(weight_U))
    row_S = np.flatnonzero(drawn_U)
    return row_S, drawn_U[row_S].astype(np.float32)


def lloyd(vector_UD: np.ndarray, weight_U: np.ndarray, centre_CD: np.ndarray) -> np.ndarray:
    """Centres after iterations of Lloyd's algorithm, until one lowers the inertia by less than SETTLED of it."""
    size = float(np.einsum("ud,ud,u->", vector_UD, vector_UD, weight_U, dtype=np.float64))
    before = np.inf
    for _ in range(MAX_ITERATIONS):
        label_U, score_U = nearest(vector_UD, centre_CD)
        inertia = size - 2 * float(weight_U @ score_U.astype(np.float64))
        if before - inertia < SETTLED * inertia:
            break
        before, centre_CD = inertia, means(vector_UD, weight_U, label_U, centre_CD)
    return centre_CD


def nearest(vector_UD: np.ndarray, centre_CD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre c of each vector x, and x·c - |c|²/2, by blocks: one product of matrices each.

    The squared distance is |x|² less twice that.
    """
    half_C = (centre_CD**2).sum(1) / 2
    label_U, score_U = np.empty(len(vector_UD), np.int64), np.empty(len(vector_UD), np.float32)
    for begin in range(0, len(vector_UD), BLOCK):
        rows = slice(begin, begin + BLOCK)
        score_BC = vector_UD[rows] @ centre_CD.T
        score_BC -= half_C
        label_U[rows] = score_BC.argmax(1)
        score_U[rows] = score_BC[np.arange(len(score_BC)), label_U[rows]]
    return label_U, score_U


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
