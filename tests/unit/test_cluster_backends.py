"""Both K-Means backends keep one contract. cuML runs on a GPU only; its calls are checked wherever it is installed."""

import inspect

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from hpc_saidpo.clusters import backends
from hpc_saidpo.clusters.backends import BACKENDS, choose
from hpc_saidpo.clusters.fit import first_centres

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@pytest.fixture(params=sorted(BACKENDS))
def backend(request):
    backend = BACKENDS[request.param](DEVICE)
    if obstacle := backend.find_obstacle():
        pytest.skip(f"not run: {backend.name} cannot run here: {obstacle}")
    return backend


def blobs(n_blobs, per_blob, seed=0, spread=0.05):
    rng = np.random.default_rng(seed)
    true_U = np.repeat(np.arange(n_blobs), per_blob)
    vector_UD = rng.standard_normal((n_blobs, 32))[true_U] + spread * rng.standard_normal((len(true_U), 32))
    return vector_UD.astype(np.float32), true_U


def run(backend, vector_UD, n, weight_U=None, seed=0):
    weight_U = np.ones(len(vector_UD), np.float32) if weight_U is None else weight_U.astype(np.float32)
    found = backend.fit(vector_UD, weight_U, first_centres(vector_UD, weight_U, n, seed), seed)
    return found, found.inertia(vector_UD, weight_U)


def test_separated_blobs_are_found(backend):
    vector_UD, true_U = blobs(8, 40)
    found, _ = run(backend, vector_UD, 8)
    assert adjusted_rand_score(true_U, found.label_U) == 1


def test_types_and_shapes(backend):
    found, _ = run(backend, blobs(3, 10)[0], 3)
    assert found.label_U.dtype == np.int64 and found.label_U.shape == (30,)
    assert found.centre_CD.dtype == np.float32 and found.centre_CD.shape == (3, 32)


def test_labels_are_the_nearest_centres_and_the_inertia_is_theirs(backend):
    vector_UD, _ = blobs(6, 50, spread=0.8)
    weight_U = np.random.default_rng(1).integers(1, 9, len(vector_UD))
    found, inertia = run(backend, vector_UD, 6, weight_U)
    distance_UC = ((vector_UD[:, None].astype(float) - found.centre_CD) ** 2).sum(-1)
    assert np.array_equal(found.label_U, distance_UC.argmin(1))
    assert inertia == pytest.approx((weight_U * distance_UC.min(1)).sum(), rel=1e-4)


def test_weights_stand_for_repeats(backend):
    vector_UD, _ = blobs(5, 12, spread=0.9)
    times_U = np.random.default_rng(2).integers(1, 6, len(vector_UD))
    centre_CD = first_centres(vector_UD, times_U.astype(np.float32), 5, 0)
    weighted = backend.fit(vector_UD, times_U.astype(np.float32), centre_CD, 0)
    repeated_RD = np.repeat(vector_UD, times_U, axis=0)
    repeated = backend.fit(repeated_RD, np.ones(len(repeated_RD), np.float32), centre_CD, 0)
    assert np.array_equal(np.repeat(weighted.label_U, times_U), repeated.label_U)
    assert weighted.centre_CD == pytest.approx(repeated.centre_CD, abs=1e-4)


def test_more_clusters_than_distinct_vectors(backend):
    vector_UD = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    found, inertia = run(backend, vector_UD, 6)
    groups = found.label_U.reshape(3, 5)
    assert (groups == groups[:, :1]).all() and len(set(groups[:, 0])) == 3 and inertia == pytest.approx(0, abs=1e-9)


def test_inputs_are_left_as_they_were(backend):
    vector_UD, _ = blobs(4, 10)
    before = vector_UD.copy()
    run(backend, vector_UD, 4)
    assert np.array_equal(vector_UD, before)


def test_scikit_learn_repeats_itself():
    vector_UD, _ = blobs(6, 50, spread=0.8)
    own = backends.ScikitLearn(DEVICE)
    assert np.array_equal(run(own, vector_UD, 6)[0].label_U, run(own, vector_UD, 6)[0].label_U)


def test_a_sample_finds_weighted_clusters_as_good_as_all_vectors(monkeypatch):
    vector_UD, _ = blobs(20, 300, spread=0.6)
    weight_U = np.random.default_rng(3).pareto(1.5, len(vector_UD)) + 1  # few vectors of many questions
    own = backends.ScikitLearn(DEVICE)
    _, whole = run(own, vector_UD, 20, weight_U)
    monkeypatch.setattr(backends, "SAMPLED_FROM", 1000)
    monkeypatch.setattr(backends, "SAMPLE", 60)
    _, rough = run(own, vector_UD, 20, weight_U)
    assert rough == pytest.approx(whole, rel=0.02)


def test_a_sample_stands_for_all():
    weight_U = np.random.default_rng(0).pareto(1.5, 2000).astype(np.float32)
    row_S, weight_S = backends.sample(weight_U, 1000, 0)
    assert weight_S.sum() == 1000 and len(np.unique(row_S)) == len(row_S) < 1000
    times = np.mean([np.bincount(*backends.sample(weight_U, 1000, s), minlength=2000) for s in range(200)], axis=0)
    assert np.corrcoef(times, weight_U)[0, 1] > 0.99
    assert np.array_equal(backends.sample(weight_U, 2000, 0)[0], np.arange(2000))


def test_first_centres_are_vectors_and_the_same_for_a_seed():
    vector_UD, _ = blobs(4, 500)
    weight_U = np.ones(len(vector_UD), np.float32)
    a, b, c = (first_centres(vector_UD, weight_U, 4, seed) for seed in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert all((vector_UD == centre).all(1).any() for centre in a)


def test_the_same_centres_give_both_backends_the_same_labels():
    gpu = backends.CuML(DEVICE)
    if obstacle := gpu.find_obstacle():
        pytest.skip(f"not run: cuML cannot run here: {obstacle}")
    vector_UD, _ = blobs(20, 100)
    assert np.array_equal(
        run(gpu, vector_UD, 20)[0].label_U, run(backends.ScikitLearn(DEVICE), vector_UD, 20)[0].label_U
    )


def test_cuml_accepts_the_arguments():
    cluster = pytest.importorskip("cuml.cluster", reason="not run: cuML is not installed")
    arguments = backends.CuML.arguments(np.zeros((3, 4), np.float32), 0)
    inspect.signature(cluster.KMeans.__init__).bind(None, **arguments)
    inspect.signature(cluster.KMeans.fit).bind(None, np.zeros((3, 4)), sample_weight=np.ones(3))


def test_the_choice_says_why():
    own, why = choose("cpu", DEVICE)
    assert own.name == "scikit-learn" and why == "clusters.backend=cpu"
    auto, why = choose("auto", DEVICE)
    can = not backends.CuML(DEVICE).find_obstacle()
    assert auto.name == ("cuML" if can else "scikit-learn") and ("kernels" if can else "cannot run here: ") in why
