import numpy as np
import pytest

from hpc_saidpo import clusters
from hpc_saidpo.records import RunError


def blobs(n_blobs, per_blob, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((n_blobs, 32))
    vectors = np.repeat(centre, per_blob, axis=0) + 0.05 * rng.standard_normal((n_blobs * per_blob, 32))
    names = [f"tag {i}" for i in range(len(vectors))]
    return names, clusters.Embedding(names, (vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float32))


def test_separated_groups_are_found():
    names, embedding = blobs(6, 20)
    cluster_N = clusters.fit(names, embedding, clusters.Config(n=6)).cluster_N
    groups = cluster_N.reshape(6, 20)
    assert (groups == groups[:, :1]).all() and len(set(groups[:, 0])) == 6


def test_clusters_are_numbered_by_size():
    names, embedding = blobs(3, 4)
    text_N = [*names[:4], *names[4:8] * 5, *names[8:] * 3]  # 4, 20 and 12 questions
    cluster_N = clusters.fit(text_N, embedding, clusters.Config(n=3)).cluster_N
    assert np.bincount(cluster_N).tolist() == [20, 12, 4]


def test_weights_stand_for_repeated_questions():
    names, embedding = blobs(4, 5, seed=3)
    repeated = clusters.fit(names * 7, embedding, clusters.Config(n=4)).cluster_N
    assert np.array_equal(repeated[:20], repeated[20:40])


def test_more_clusters_than_questions_are_refused():
    names, embedding = blobs(2, 2)
    with pytest.raises(RunError, match=r"clusters\.n=5.*4 questions"):
        clusters.fit(names, embedding, clusters.Config(n=5))


def test_fewer_knowledge_points_than_clusters_are_reported():
    names, embedding = blobs(2, 2)
    config = clusters.Config(n=10)
    assignment = clusters.fit(names * 5, embedding, config)
    health = clusters.health(assignment.cluster_N, [(n,) for n in names * 5], config)
    assert health["n_clusters"] == 4 and "differ in 4 ways" in health["warnings"][0]


def test_health_figures():
    cluster_N = np.array([0] * 6 + [1] * 3 + [2])
    health = clusters.health(cluster_N, [("a", "b")] * 6 + [("c",)] * 4, clusters.Config(n=3))
    assert health["sizes"] == [6, 3, 1] and health["largest_share"] == 0.6 and health["clusters_under_5"] == 2
    share = np.array([0.6, 0.3, 0.1])
    assert health["effective_clusters"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert health["top_tags"][0] == ["a", "b"]
    assert any("raise clusters.n" in w for w in health["warnings"])


def test_the_real_encoder_puts_like_topics_together():
    points = [("addition", "sums"), ("area of triangles", "geometry"), ("adding numbers",), ("triangle perimeter",)]
    texts = clusters.texts(points)
    embedding = clusters.embed(texts, clusters.Config().encoder, "cpu")
    assert np.linalg.norm(embedding.vector_UD, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    cluster_N = clusters.fit(texts, embedding, clusters.Config(n=2)).cluster_N
    assert cluster_N[0] == cluster_N[2] != cluster_N[1] == cluster_N[3]


def test_a_missing_encoder_is_named():
    with pytest.raises(RunError, match=r"clusters\.encoder=/no/such"):
        clusters.embed(["x"], "/no/such/folder", "cpu")


def test_a_forced_gpu_that_cannot_run_is_an_error():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    names, embedding = blobs(2, 2)
    with pytest.raises(RunError, match=r"clusters\.backend=gpu"):
        clusters.fit(names, embedding, clusters.Config(n=2, backend="gpu"))
