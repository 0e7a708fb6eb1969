"""K-Means on the CPU (scikit-learn) or one GPU (cuML), with one interface and the same initial centres.

The initial centres are made on the host (`fit.first_centres`): those of cuML are not repeatable by seed.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy import sparse

from ..errors import RunError

SAMPLED_FROM = 20_000  # vectors, on the CPU: for fewer, Lloyd's algorithm on all of them takes seconds
SAMPLE = 192  # vectors per cluster
CONVERGED = 1e-3  # relative decrease of the sample's inertia in an iteration
BLOCK = 8192  # vectors compared with all centres at once
MAX_ITERATIONS = 300
TOLERANCE = 1e-4  # cuML requires a value above 0


@dataclass(frozen=True)
class Partition:
    """The result of K-Means; a cluster may be empty.

    Attributes:
        label_U: cluster of each vector, int64 [U].
        centre_CD: centre of each cluster, float32 [C, D].
    """

    label_U: np.ndarray
    centre_CD: np.ndarray

    def inertia(self, vector_UD: np.ndarray, weight_U: np.ndarray) -> float:
        """Return the weighted sum of squared distances to the cluster's centre, in float64, alike for every backend."""
        total = 0.0
        for begin in range(0, len(vector_UD), BLOCK):  # a million vectors fit in memory once, not twice
            rows = slice(begin, begin + BLOCK)
            away_BD = vector_UD[rows] - self.centre_CD[self.label_U[rows]]
            total += float(np.einsum("bd,bd,b->", away_BD, away_BD, weight_U[rows], dtype=np.float64))
        return total


class Backend(Protocol):
    """A K-Means library on a device."""

    name: str

    def find_obstacle(self) -> str:
        """Return the reason why it cannot run here; "" where it can. A GPU must run a kernel, not only be present."""
        ...

    def fit(self, vector_UD: np.ndarray, weight_U: np.ndarray, centre_CD: np.ndarray, seed: int) -> Partition:
        """Run K-Means on weighted vectors from initial centres, all float32; a weight of w counts as w repeats."""
        ...


class ScikitLearn:
    """Lloyd's algorithm on the CPU.

    With SAMPLED_FROM vectors or more, the iterations use a sample until they converge, and the last one uses all
    vectors. These iterations are our implementation: an iteration of scikit-learn takes several times as long as a
    matrix product on one thread.
    """

    name = "scikit-learn"

    def __init__(self, device: torch.device):
        pass

    def find_obstacle(self) -> str:
        return ""

    def fit(self, vector_UD: np.ndarray, weight_U: np.ndarray, centre_CD: np.ndarray, seed: int) -> Partition:
        if len(vector_UD) < SAMPLED_FROM:
            return self._fit_all(vector_UD, weight_U, centre_CD, seed)
        row_S, weight_S = sample(weight_U, SAMPLE * len(centre_CD), seed)
        centre_CD = lloyd(vector_UD[row_S], weight_S, centre_CD)
        centre_CD = means(vector_UD, weight_U, nearest(vector_UD, centre_CD)[0], centre_CD)
        return Partition(nearest(vector_UD, centre_CD)[0], centre_CD)

    @staticmethod
    def _fit_all(vector_UD: np.ndarray, weight_U: np.ndarray, centre_CD: np.ndarray, seed: int) -> Partition:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than clusters: see health
            kmeans = KMeans(
                len(centre_CD),
                init=centre_CD,  # pyright: ignore[reportArgumentType] - typed by its default, a name
                n_init=1,  # pyright: ignore[reportArgumentType] - typed by its default, "auto"
                max_iter=MAX_ITERATIONS,
                tol=TOLERANCE,
                random_state=seed,
            ).fit(vector_UD, sample_weight=weight_U)
        label_U: np.ndarray = np.asarray(kmeans.labels_)
        return Partition(label_U.astype(np.int64), kmeans.cluster_centers_)


def sample(weight_U: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw n rows by weight, with replacement: return the distinct rows and the number of draws of each, float32.

    Returns all rows and their weights where there are at most n.
    """
    if len(weight_U) <= n:
        return np.arange(len(weight_U)), weight_U
    share_U = weight_U / weight_U.sum(dtype=np.float64)
    drawn_U = np.bincount(np.random.default_rng(seed).choice(len(weight_U), n, p=share_U), minlength=len(weight_U))
    row_S = np.flatnonzero(drawn_U)
    return row_S, drawn_U[row_S].astype(np.float32)


def lloyd(vector_UD: np.ndarray, weight_U: np.ndarray, centre_CD: np.ndarray) -> np.ndarray:
    """Return the centres after Lloyd's algorithm: it ends when the inertia falls by less than the share CONVERGED."""
    size = float(np.einsum("ud,ud,u->", vector_UD, vector_UD, weight_U, dtype=np.float64))
    before = np.inf
    for _ in range(MAX_ITERATIONS):
        label_U, score_U = nearest(vector_UD, centre_CD)
        inertia = size - 2 * float(weight_U @ score_U.astype(np.float64))
        if before - inertia < CONVERGED * inertia:
            break
        before, centre_CD = inertia, means(vector_UD, weight_U, label_U, centre_CD)
    return centre_CD


def nearest(vector_UD: np.ndarray, centre_CD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centre c of each vector x, and x·c - |c|²/2; by blocks, each one matrix product.

    The squared distance is |x|² minus twice the second value.
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
    """Return the weighted mean of each cluster; an empty cluster keeps its centre."""
    member_UC = sparse.csr_array((weight_U, label_U, np.arange(len(label_U) + 1)), (len(label_U), len(centre_CD)))
    weight_C = np.bincount(label_U, weights=weight_U, minlength=len(centre_CD)).astype(np.float32)
    mean_CD = (member_UC.T @ vector_UD) / np.maximum(weight_C, np.finfo(np.float32).tiny)[:, None]
    return np.where(weight_C[:, None] > 0, mean_CD, centre_CD)


class CuML:
    """Lloyd's algorithm on one GPU. An empty cluster keeps its centre; in scikit-learn it moves to another one."""

    name = "cuML"

    def __init__(self, device: torch.device):
        self._index = device.index or 0

    def find_obstacle(self) -> str:
        try:
            import cuml  # noqa: F401  # pyright: ignore[reportMissingImports] - on clusters with a GPU only
            import cupy  # pyright: ignore[reportMissingImports]

            if cupy.cuda.runtime.getDeviceCount() == 0:
                return "no GPU"
            with cupy.cuda.Device(self._index):
                return "" if int(cupy.arange(3).sum()) == 3 else "a kernel of cupy returned a wrong sum"
        except (ImportError, RuntimeError) as error:  # cupy's CUDARuntimeError is a RuntimeError
            return str(error)

    @staticmethod
    def arguments(centre_CD: np.ndarray, seed: int) -> dict:
        """Return the keyword arguments of cuml.cluster.KMeans."""
        return {
            "n_clusters": len(centre_CD),
            "init": centre_CD,
            "n_init": 1,  # the default is 10 equal starts from the same centres
            "max_iter": MAX_ITERATIONS,
            "tol": TOLERANCE,
            "random_state": seed,
            "output_type": "numpy",
        }

    def fit(self, vector_UD: np.ndarray, weight_U: np.ndarray, centre_CD: np.ndarray, seed: int) -> Partition:
        import cupy  # pyright: ignore[reportMissingImports]
        from cuml.cluster import KMeans  # pyright: ignore[reportMissingImports]

        with cupy.cuda.Device(self._index):
            kmeans = KMeans(**self.arguments(centre_CD, seed)).fit(vector_UD, sample_weight=weight_U)
        return Partition(np.asarray(kmeans.labels_, dtype=np.int64), np.asarray(kmeans.cluster_centers_, np.float32))


BACKENDS = {"cpu": ScikitLearn, "gpu": CuML}


def choose(requested: str, device: torch.device) -> tuple[Backend, str]:
    """Choose a backend. Returns it and the reason, in words.

    Args:
        requested: auto, cpu or gpu (clusters.backend).

    Raises:
        RunError: clusters.backend=gpu, and it cannot run here.
    """
    if requested == "cpu":
        return ScikitLearn(device), "clusters.backend=cpu"
    gpu = CuML(device)
    obstacle = gpu.find_obstacle()
    if not obstacle:
        return gpu, "a GPU is present and runs kernels"
    if requested == "gpu":
        raise RunError(f"clusters.backend=gpu cannot run here ({obstacle}): use clusters.backend=auto")
    return ScikitLearn(device), f"cuML cannot run here: {obstacle}"
