import numpy as np
import pytest

from hpc_saidpo.rollouts import chunks
from hpc_saidpo.settings import Rollouts


def sizes(n, largest=64, smallest=8, families=1):
    cut = chunks.cut({q: [0] * (q % 7 + 1) for q in range(n)}, lambda q: str(q % families), largest, smallest)
    assert sorted(q for chunk in cut for q in chunk) == list(range(n))
    assert all(len({q % families for q in chunk}) == 1 for chunk in cut)
    return [len(chunk) for chunk in cut]


def test_chunks_hold_one_family_of_like_lengths():
    tokens = {q: [0] * (10 - q) for q in range(10)}
    assert chunks.cut(tokens, lambda q: "ab"[q % 2], 3, 3) == [[0, 2, 4], [6, 8], [1, 3, 5], [7, 9]]
    assert chunks.cut(tokens, lambda q: "", 4, 8) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert chunks.cut({}, lambda q: "", 4, 4) == []


def test_chunks_become_smaller_towards_the_end():
    assert sizes(200, largest=64, smallest=1)[:5] == [4, 4, 3, 3, 3]  # ⌈200/64⌉, ⌈196/64⌉, ⌈192/64⌉ ...
    found = sizes(10_000)
    assert found == sorted(found, reverse=True) and found[0] == 64 and found[-2] == 8
    assert len(found) > 50 * 4  # something to steal for each of four ranks
    across = sizes(10_000, families=10)
    assert across[0] == 64 and across[-2] == 8  # what is left counts over all families


def test_few_questions_make_chunks_of_one_size():
    assert sizes(500) == [8] * 62 + [4]
    assert set(sizes(512, smallest=12)[:-1]) == {12}
    assert sizes(6, largest=2, smallest=8) == [2, 2, 2]


def test_chunks_have_the_requested_size():
    for size in (1, 16, 512):
        config = Rollouts(chunk_questions=size)
        found = sizes(1000, *config.chunk_bounds("explore"))
        assert set(found[:-1]) <= {size} and len(found) == -(-1000 // size)
    waves = Rollouts(adaptive=True, min_chunk_questions=8, k=8, waves=(2, 2, 4))
    assert waves.chunk_bounds("explore") == (64, 32) and waves.chunk_bounds("evaluate") == (64, 8)


def test_ranks_without_a_chunk_are_counted():
    config = Rollouts()
    for n in (0, 1, 8, 9, 500, 1000, 10_000):
        assert chunks.count(n, *config.chunk_bounds("explore")) == len(sizes(n)), n
    assert chunks.count(1000, *config.chunk_bounds("explore")) == 105
    assert chunks.too_many_ranks(105, 1000, config, "explore") == ""
    told = chunks.too_many_ranks(106, 1000, config, "explore")
    assert "106 ranks" in told and "at most 105 ranks" in told
    assert "at most 2 ranks" in chunks.too_many_ranks(3, 1000, Rollouts(chunk_questions=512), "explore")


def test_what_is_expected_to_take_longest_is_claimed_first():
    cut, tokens = [[0, 1], [2, 3], [4]], {0: [0] * 9, 1: [0] * 9, 2: [0], 3: [0], 4: [0] * 30}
    assert chunks.longest_first(cut, tokens, {}) == [2, 0, 1]  # by their prompts alone
    assert chunks.longest_first(cut, tokens, {2: 200.0, 3: 1.0}) == [1, 2, 0]
    assert chunks.longest_first(cut, tokens, dict.fromkeys(range(5), 10.0)) == [0, 1, 2]  # two questions, one
    # 100 tokens of a prompt cost as much as 5 of each response, 10 of one as much as a half.
    unequal = {0: [0] * 100, 1: [0] * 10}
    assert chunks.longest_first([[0], [1]], unequal, {0: 10.0, 1: 14.4}) == [0, 1]
    assert chunks.longest_first([[0], [1]], unequal, {0: 10.0, 1: 14.6}) == [1, 0]
    alike = {q: [0] for q in range(4)}
    assert chunks.longest_first([[3], [1], [2], [0]], alike, {}) == [0, 1, 2, 3]
    assert chunks.longest_first([], {}, {}) == []


def test_expected_is_a_questions_own_length_then_its_clusters_then_the_runs():
    tokens_N = np.array([10.0, 30.0, np.nan, 80.0, np.nan, np.nan])
    cluster_N = np.array([0, 0, 0, 1, 1, 2])
    expected_Q = chunks.expected_tokens(tokens_N, cluster_N, np.array([5, 4, 2, 1]))
    assert expected_Q == {5: 40.0, 4: 80.0, 2: 20.0, 1: pytest.approx(30.0)}
    assert chunks.expected_tokens(np.full(6, np.nan), cluster_N, np.arange(6)) == {}
    assert chunks.expected_tokens(tokens_N, cluster_N, np.array([], dtype=int)) == {}
