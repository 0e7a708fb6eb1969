"""Questions that learn from the most similar ones: weights of neighbours, evidence, draws (clusters.kind=kernel)."""

import numpy as np
import pytest

from hpc_saidpo import settings
from hpc_saidpo.clusters import neighbours as module
from hpc_saidpo.clusters.embed import Embedding
from hpc_saidpo.clusters.fit import fit
from hpc_saidpo.clusters.kernel import KernelSampler
from hpc_saidpo.clusters.neighbours import EQUAL, Neighbours
from hpc_saidpo.records import Difficulty
from hpc_saidpo.sampler import Sampler
from hpc_saidpo.sampler.inclusion import inclusion


def unit(vectors) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def neighbours_of(vectors, n=3, text_N=None) -> Neighbours:
    vector_UD = unit(vectors)
    return Neighbours(np.arange(len(vector_UD)) if text_N is None else np.asarray(text_N), vector_UD, n)


def by_definition(neighbours: Neighbours, row_T, value_TF) -> np.ndarray:
    """The formula of the documentation, one text and one neighbour after the other."""
    found = np.zeros((len(neighbours.vector_UD), value_TF.shape[1]))
    for u, vector in enumerate(neighbours.vector_UD.astype(np.float64)):
        cosine_T = neighbours.vector_UD[row_T].astype(np.float64) @ vector
        order = np.argsort(-cosine_T)[: neighbours.n + 1]
        first, last = cosine_T[order[0]], cosine_T[order[-1]]
        for t in order:
            found[u] += (cosine_T[t] - last + EQUAL) / (first - last + EQUAL) * value_TF[t]
    return found


@pytest.mark.parametrize("n", [1, 3, 20, 100])
@pytest.mark.parametrize("block", [1, 200, 2**23])
def test_the_weighted_sums_are_those_of_the_formula(n, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(0)
    neighbours, row_T = neighbours_of(rng.normal(size=(70, 12)), n), np.sort(rng.choice(70, 40, replace=False))
    value_TF = rng.random((40, 3))
    assert np.allclose(neighbours.smooth(row_T, value_TF), by_definition(neighbours, row_T, value_TF), atol=1e-4)


def test_the_nearest_text_counts_in_full_and_the_first_one_outside_hardly():
    neighbours = neighbours_of([[1, 0], [1, 0.1], [1, 0.3], [1, 0.6], [0, 1]], n=3)
    weight_UT = neighbours.smooth(np.arange(5), np.eye(5))
    assert weight_UT.max(axis=1) == pytest.approx(1) and np.diag(weight_UT) == pytest.approx(1)
    assert weight_UT[0, 3] < 2 * EQUAL / 0.1 and weight_UT[0, 4] == 0  # three neighbours: 0, 1, 2
    assert 1 > weight_UT[0, 1] > weight_UT[0, 2] > 0.1


def test_one_text_with_evidence_and_equal_texts_count_in_full():
    neighbours = neighbours_of([[1, 0], [1, 0], [1, 0], [0, 1]], n=2)
    assert neighbours.smooth(np.array([3]), np.array([[5.0]])) == pytest.approx(5)
    assert neighbours.smooth(np.array([0, 1, 2]), np.ones((3, 1))) == pytest.approx(3)


def sampler_of(neighbours, seed=0, n_clusters=1, **config) -> KernelSampler:
    cluster_N = np.arange(len(neighbours.text_N)) % n_clusters
    return KernelSampler(neighbours, cluster_N, settings.Sampler(**config), seed)


def test_separate_groups_have_the_weights_that_they_have_as_clusters():
    group_N = np.repeat([0, 1, 2], 12)
    neighbours = neighbours_of(np.eye(3), n=1, text_N=group_N)
    for rule in ("error", "frontier_error", "frontier"):
        config = settings.Sampler(rule=rule)
        ours, theirs = KernelSampler(neighbours, group_N, config), Sampler(group_N, config)
        for sampler in (ours, theirs):
            sampler.update(np.arange(0, 36, 2), [4, 3, 4, 5, 4, 4, 0, 0, 0, 1, 0, 0, 8, 8, 7, 8, 8, 8], [8] * 18)
        assert ours.weights() == pytest.approx(theirs.weights(), rel=0.05)
        assert ours.cluster_weights() == pytest.approx([ours.weights()[group_N == c].mean() for c in range(3)])


def test_evidence_loses_weight_with_age_and_newer_counts_replace_older_ones():
    neighbours = neighbours_of([[1, 0], [0, 1]], n=1, text_N=[0, 0, 0, 1])
    sampler = sampler_of(neighbours, history=0.5)
    n_near = lambda: sampler.describe(np.array([2]), sampler.weights()).n_Q[-1]  # noqa: E731
    sampler.update([0], [2], [4])
    assert n_near() == pytest.approx(1, abs=0.01)
    sampler.begin(1)
    assert n_near() == pytest.approx(0.5, abs=0.01)
    sampler.update([1], [1], [4])
    assert n_near() == pytest.approx(1.5, abs=0.01)
    sampler.update([0], [4], [4])
    assert n_near() == pytest.approx(2, abs=0.01)
    sampler.begin(3)
    assert n_near() == pytest.approx(0.5, abs=0.01)


def test_without_history_texts_of_earlier_iterations_are_no_neighbours():
    """They would take the places of texts that have evidence."""
    neighbours = neighbours_of([[1, 0], [1, 0.01], [1, 0.02], [0.2, 1]], n=1)
    sampler = sampler_of(neighbours, history=0.0, rule="frontier")
    sampler.update([0, 1], [0, 0], [4, 4])
    sampler.begin(1)
    assert sampler.weights().tolist() == [1] * 4
    sampler.update([3], [2], [4])
    n_Q = sampler.describe(np.arange(4), sampler.weights()).n_Q
    assert n_Q == pytest.approx(1)


def test_without_evidence_all_questions_are_alike():
    sampler = sampler_of(neighbours_of(np.eye(4)))
    assert sampler.weights().tolist() == [1] * 4 and sampler.priors(np.arange(4)) == {}
    described = sampler.describe(np.array([1]), sampler.weights())
    assert np.isnan(described.a_Q).all() and described.chance_Q == pytest.approx(0.25) and described.n_Q.tolist() == [0]


def test_draws_of_an_iteration_use_the_sums_again_until_there_is_new_evidence(monkeypatch):
    calls = []
    smooth = Neighbours.smooth
    monkeypatch.setattr(Neighbours, "smooth", lambda *arguments: calls.append(1) or smooth(*arguments))
    sampler = sampler_of(neighbours_of(np.random.default_rng(0).normal(size=(30, 4))))
    for n_expected, at in ((1, 0), (2, 1)):
        sampler.begin(at)
        sampler.update([at, at + 5], [1, 0], [4, 4])
        sampler.draw(3), sampler.draw(3), sampler.priors(np.arange(9)), sampler.entropy_share()
        assert len(calls) == n_expected


def test_a_drawn_question_can_be_explained():
    rng = np.random.default_rng(0)
    sampler = sampler_of(neighbours_of(rng.normal(size=(60, 5))), exclude_iterations=2)
    sampler.update(np.arange(0, 60, 3), rng.integers(0, 5, 20), [4] * 20)
    sampler.note_drawn(np.array([4, 7]))
    weight_N, question_Q = sampler.weights(), sampler.choose(6)
    described = sampler.describe(question_Q, weight_N)
    excluded = np.isin(np.arange(60), [4, 7])
    chance_N = inclusion(np.where(excluded, 0, weight_N), np.ones(60), 6)
    assert set(described.question_Q) == set(question_Q) | set(range(0, 60, 3)) | {4, 7}
    assert np.array_equal(described.weight_Q, weight_N[described.question_Q])
    assert np.array_equal(described.chance_Q, chance_N[described.question_Q])
    priors = sampler.priors(described.question_Q)
    assert [priors[i] for i in described.question_Q.tolist()] == [*zip(described.a_Q, described.b_Q, strict=True)]


def test_a_state_goes_on_with_the_same_draws():
    neighbours = neighbours_of(np.random.default_rng(0).normal(size=(40, 4)))
    sampler, other = sampler_of(neighbours), sampler_of(neighbours)
    sampler.update(np.arange(20), np.arange(20) % 5, [4] * 20)
    sampler.begin(1)
    other.load_state_dict(sampler.state_dict())
    assert other.draw(10).tolist() == sampler.draw(10).tolist()


def test_more_useful_questions_are_drawn_than_by_clusters_that_are_too_wide():
    """Questions on a circle; those of a sixteenth of it are of use, and K-Means has six cells."""
    angle_N = np.random.default_rng(0).uniform(0, 2 * np.pi, 2_000)
    useful_N = angle_N < np.pi / 8
    text_N = [str(i) for i in range(2_000)]
    embedding = Embedding(text_N, unit(np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)))
    cluster_N = fit(text_N, embedding, settings.Clusters(n=6)).assignment.cluster_N
    neighbours = Neighbours(np.arange(2_000), embedding.vector_UD, 20)

    def share_of_use(sampler: Sampler) -> float:
        rng, drawn = np.random.default_rng(1), []
        for t in range(4):
            sampler.begin(t)
            for q, is_probe in ((rng.choice(2_000, 100, replace=False), True), (sampler.draw(60), False)):
                if not is_probe:
                    drawn.append(useful_N[q].mean())
                sampler.update(q, np.where(useful_N[q], rng.integers(1, 8, len(q)), 0), [8] * len(q), is_probe)
        return float(np.mean(drawn[1:]))

    by_kernel, by_clusters = (
        np.mean([share_of_use(make(seed)) for seed in range(5)])
        for make in (lambda s: sampler_of(neighbours, s), lambda s: Sampler(cluster_N, settings.Sampler(), s))
    )
    assert by_kernel > 0.8 > by_clusters + 0.2, (by_kernel, by_clusters)


def test_what_questions_learn_from_each_other_does_not_depend_on_when_questions_were_decided():
    """A question gets waves of 2 responses until one is correct and one is wrong. Only first waves are fitted."""
    rng, neighbours = np.random.default_rng(0), neighbours_of(np.ones((4000, 1)), n=1, text_N=np.zeros(4000, int))
    rate_N = rng.beta(1.0, 2.0, 4000)
    correct_NK = rng.random((4000, 8)) < rate_N[:, None]
    both_NK = np.cumsum(correct_NK, axis=1) % (np.arange(8) + 1) > 0
    n_tried_N = np.where(both_NK[:, 1::2].any(axis=1), 2 * both_NK[:, 1::2].argmax(axis=1) + 2, 8)
    n_correct_N = np.where(np.arange(8) < n_tried_N[:, None], correct_NK, False).sum(axis=1)
    whole, first = (
        Difficulty(np.arange(3999), k_N[:3999], s_N[:3999], *np.ones((3, 3999)))
        for k_N, s_N in ((n_tried_N, n_correct_N), (np.full(4000, 2), correct_NK[:, :2].sum(axis=1)))
    )
    sampler = sampler_of(neighbours)
    sampler.observe(whole, first_wave=first)
    prior_Q = sampler.priors(np.array([0, 3999]))
    assert prior_Q[3999] == pytest.approx((1.0, 2.0), abs=0.2)  # never rolled out
    own = int(n_correct_N[0]), int(n_tried_N[0] - n_correct_N[0])
    assert np.subtract(prior_Q[0], prior_Q[3999]) == pytest.approx(own)
    sampler = sampler_of(neighbours)
    sampler.observe(whole)
    assert sum(sampler.priors(np.array([3999]))[3999]) > 10  # as if all counts had been fixed before


def test_a_run_without_knowledge_points_has_no_neighbours():
    with pytest.raises(ValueError, match=r"clusters.n=1 has none: set clusters.n "):
        settings.Clusters(n=1, kind="kernel")
