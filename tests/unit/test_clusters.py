"""Knowledge points -> vectors -> clusters, their health, and the number of clusters that is suggested."""

import json

import numpy as np
import pytest
import torch
from support.pools import run_dir

from hpc_saidpo import settings
from hpc_saidpo.cli.clusters import main
from hpc_saidpo.clusters import embed
from hpc_saidpo.clusters.embed import Embedding
from hpc_saidpo.clusters.fit import fit, silhouette
from hpc_saidpo.clusters.health import health
from hpc_saidpo.clusters.stage import cluster
from hpc_saidpo.clusters.suggest import suggest
from hpc_saidpo.errors import RunError
from hpc_saidpo.report import clusters

CPU = torch.device("cpu")


def blobs(n_blobs, per_blob, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((n_blobs, 32))
    vectors = np.repeat(centre, per_blob, axis=0) + 0.05 * rng.standard_normal((n_blobs * per_blob, 32))
    names = [f"tag {i}" for i in range(len(vectors))]
    return names, Embedding(names, (vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float32))


def test_separated_groups_are_found():
    names, embedding = blobs(6, 20)
    cluster_N = fit(names, embedding, settings.Clusters(n=6)).assignment.cluster_N
    groups = cluster_N.reshape(6, 20)
    assert (groups == groups[:, :1]).all() and len(set(groups[:, 0])) == 6


def test_clusters_are_numbered_by_size():
    names, embedding = blobs(3, 4)
    text_N = [*names[:4], *names[4:8] * 5, *names[8:] * 3]  # 4, 20 and 12 questions
    cluster_N = fit(text_N, embedding, settings.Clusters(n=3)).assignment.cluster_N
    assert np.bincount(cluster_N).tolist() == [20, 12, 4]


def test_weights_stand_for_repeated_questions():
    names, embedding = blobs(4, 5, seed=3)
    repeated = fit(names * 7, embedding, settings.Clusters(n=4)).assignment.cluster_N
    assert np.array_equal(repeated[:20], repeated[20:40])


@pytest.mark.parametrize(
    "vector, label, expected",
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 1.0),
        ([0, 0, 1, 2], [0, 0, 1, 2], 0.5),  # 0 for a vector that is alone in its cluster
        ([0, 0, 1, 1], [0, 0, 0, 0], None),
        ([0, 1, 2, 3], [0, 1, 2, 3], None),
    ],
)
def test_the_silhouette_needs_two_clusters_and_a_cluster_of_two(vector, label, expected):
    assert silhouette(np.eye(4, dtype=np.float32)[vector], np.array(label), 0) == expected


def test_more_clusters_than_questions_are_refused():
    names, embedding = blobs(2, 2)
    with pytest.raises(RunError, match=r"clusters\.n=5.*4 questions"):
        fit(names, embedding, settings.Clusters(n=5))


def test_fewer_knowledge_points_than_clusters_are_reported():
    names, embedding = blobs(2, 2)
    clustering = fit(names * 5, embedding, settings.Clusters(n=10))
    report = health(clustering.assignment.cluster_N, [(n,) for n in names * 5], 10, 1.0, clustering.facts)
    assert report["n_clusters"] == 4 and "only 4 distinct sets of knowledge points" in report["warnings"][0]


def test_health_figures():
    cluster_N = np.array([0] * 6 + [1] * 3 + [2])
    report = health(cluster_N, [("a", "b")] * 6 + [("c",)] * 4, 3, 1.0)
    assert report["sizes"] == [6, 3, 1] and report["largest_share"] == 0.6 and report["clusters_under_5"] == 2
    share = np.array([0.6, 0.3, 0.1])
    assert report["effective_clusters"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert report["top_tags"][0] == ["a", "b"]
    assert any("raise clusters.n" in w for w in report["warnings"])


def warnings_of(sizes, n_requested=None, probed=1.0):
    cluster_N = np.repeat(np.arange(len(sizes)), sizes)
    return health(cluster_N, [("a",)] * len(cluster_N), n_requested or len(sizes), probed)["warnings"]


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ([6, 5, 4, 4], None),  # half of the clusters are small: not more than half
        ([6, 4, 4], "2 of 3 clusters hold under 5 questions: lower clusters.n"),
        ([6, 5, 4], None),
        ([5] * 4, None),  # a cluster of 5 is not small
        ([4] * 4, "4 of 4 clusters hold under 5 questions: lower clusters.n"),
    ],
)
def test_small_clusters_are_reported_when_they_are_more_than_half(sizes, shown):
    small = [warning for warning in warnings_of(sizes) if "hold under" in warning]
    assert small == ([shown] if shown else [])


def test_a_cluster_is_dominant_with_more_than_half_of_the_pool():
    assert not warnings_of([10, 5, 5])
    (warning,) = warnings_of([11, 5, 5])
    assert "one cluster holds 52% of the pool" in warning and "raise clusters.n" in warning


def test_fewer_clusters_than_requested_are_reported():
    assert not warnings_of([5, 5, 5], n_requested=3) and not warnings_of([5, 5, 5], n_requested=2)
    (warning,) = warnings_of([5, 5, 5], n_requested=4)
    assert warning.startswith("clusters.n=4") and warning.endswith("3 clusters")


def test_a_probe_is_large_enough_with_two_questions_per_cluster():
    assert not warnings_of([5, 5, 5, 5], probed=0.4)
    (warning,) = warnings_of([5, 5, 5, 5], probed=0.39)
    assert "raise probe.fraction from 0.39 to 0.4, or lower clusters.n" in warning


def test_one_cluster_has_no_warnings():
    assert not warnings_of([3], probed=0.01)


def test_the_real_encoder_puts_like_topics_together():
    points = [("addition", "sums"), ("area of triangles", "geometry"), ("adding numbers",), ("triangle perimeter",)]
    texts = embed.texts(points)
    embedding = embed.embed(texts, embed.load(settings.Clusters().encoder, CPU), 64)
    assert np.linalg.norm(embedding.vector_UD, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    cluster_N = fit(texts, embedding, settings.Clusters(n=2)).assignment.cluster_N
    assert cluster_N[0] == cluster_N[2] != cluster_N[1] == cluster_N[3]


def test_a_missing_encoder_is_named():
    with pytest.raises(RunError, match=r"clusters\.encoder=/no/such"):
        embed.weights_hash("/no/such/folder")
    with pytest.raises(RunError, match=r"clusters\.encoder=/no/such"):
        embed.load("/no/such/folder", CPU)


def test_a_forced_gpu_that_cannot_run_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    names, embedding = blobs(2, 2)
    with pytest.raises(RunError, match=r"clusters\.backend=gpu"):
        fit(names, embedding, settings.Clusters(n=2, backend="gpu"))


def test_more_distinct_texts_make_larger_chunks_and_none_is_lost():
    few = embed.chunks([f"topic {i % 100}" for i in range(1000)])
    assert sorted(text for chunk in few for text in chunk) == sorted({f"topic {i}" for i in range(100)})
    lengths = [len(text) for chunk in few for text in chunk]
    assert lengths == sorted(lengths, reverse=True) and len(few) == 2
    many = embed.chunks(str(i) for i in range(100_000))
    assert len(many) == 64 and len({len(chunk) for chunk in many[:-1]}) == 1


def test_a_sweep_over_n_embeds_once_and_its_clusterings_stay(tmp_path):
    points = [(f"topic {i % 7}",) for i in range(40)]
    for n in (2, 3, 3):
        found = cluster(points, settings.Clusters(n=n), 0.01, run_dir(tmp_path))
        assert found.health["n_clusters"] == n == len(set(found.cluster_N)) and found.health["vectors"] == 7
    names = sorted(p.name.split("-")[0] for p in (tmp_path / "runs/.shared").iterdir() if not p.name.startswith("."))
    assert names == ["clusters", "clusters", "embedding"]


def test_an_encoder_is_known_by_its_weights_not_its_path(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    a, b, c = (embed.weights_hash(str(tmp_path / name)) for name in "abc")
    assert a == b != c


def test_too_small_a_probe_is_reported_with_the_remedy():
    cluster_N = np.repeat(np.arange(10), 100)
    enough, few = (health(cluster_N, [("a",)] * 1000, 10, share)["warnings"] for share in (0.02, 0.01))
    assert not enough
    assert "contains 1.0 questions of a cluster" in few[0] and "from 0.01 to 0.02" in few[0] and "clusters.n" in few[0]


def test_the_report_shows_each_cluster_with_its_knowledge_points():
    report = health(np.array([0, 0, 1]), [("a<b",), ("a<b",), ("geometry",)], 2, 1.0)
    record = {"iteration": 0, "cluster_error_rate": [0.25, None], "cluster_drawn": [3, 1], "cluster_weight": [2.0, 0.5]}
    record |= {"cluster_error_low95": [0.1, 0.0], "cluster_error_high95": [0.4, 1.0]}
    page = clusters.clusters(report, [record])
    assert "a&lt;b" in page and "geometry" in page and "25.0 %" in page and "[10.0, 40.0]" in page
    full, empty = (page.index(f"rgba(47,127,208,{share})") for share in ("0.75", "0.00"))
    assert full < page.index(">2</span>") < empty < page.index(">0.5</span>")  # the larger weight has the fuller colour
    assert not clusters.is_shown({}) and clusters.is_shown(report)


def row(n, probed, silhouette, largest=0.1, small=0):
    return {
        "n": n, "n_clusters": n, "probed_per_cluster": probed, "silhouette": silhouette, "largest_share": largest,
        "clusters_under_5": small,
    }  # fmt: skip


def test_of_the_clusterings_that_a_probe_reaches_the_most_separate_is_suggested():
    rows = [row(10, 9, 0.2, largest=0.6), row(20, 5, 0.3), row(40, 3, 0.4), row(80, 3, 0.5, small=30), row(99, 1, 0.9)]
    n, why = suggest(rows)
    assert n == 40 and "2 of 5" in why
    n, why = suggest([row(50, 0.4, 0.2), row(100, 0.2, 0.3)])
    assert n == 50 and "raise probe.fraction" in why


def test_the_command_sweeps_with_a_runs_embedding(tmp_path, capsys):
    pool = tmp_path / "pool.jsonl"
    topics = ("area of a circle", "prime factors", "linear equations", "probability of dice")
    rows = ({"id": str(i), "question": f"{i}?", "answer": "1", "tags": [topics[i % 4]]} for i in range(80))
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = (f"pool.path={pool}", "policy.path=p", f"run.root={tmp_path}/runs", "probe.fraction=0.2")
    assert main(["--n", "2,4", "--png", str(tmp_path / "x.png"), *overrides]) == 0
    shown = capsys.readouterr().out
    assert "clusters.n=4: the most separate" in shown and "8.0" in shown
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "runs" / ".shared").glob("embedding-*/DONE"))) == 1
