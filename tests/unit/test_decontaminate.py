"""The filter finds what a plain comparison finds, whatever the texts."""

import random

import pytest

from hpc_saidpo.pool.decontaminate import BOILERPLATE, Filter, Grams, words

N = 4


def plain(text, benchmark, n, threshold):
    """Benchmark question and share by sets of tuples; None without a match."""

    def grams(t):
        own = words(t).split()
        return {tuple(own[i : i + n]) for i in range(len(own) - n + 1)}

    best = (0.0, None)
    for number, other in enumerate(benchmark):
        own, its = grams(text), grams(other)
        if own and its:
            best = max(best, (len(own & its) / min(len(own), len(its)), -number), key=lambda x: (x[0], x[1] or 0))
    return (-best[1], best[0]) if best[0] > threshold else None


@pytest.mark.parametrize("seed", range(8))
def test_the_same_matches_as_by_comparing_sets(seed):
    rng = random.Random(seed)
    vocabulary = ["a", "B", "c1", "Größe", "½", "x_2", "問題", "the", "of", "$y$"]

    def text():
        return rng.choice([" ", ", ", "\n"]).join(rng.choice(vocabulary) for _ in range(rng.randrange(0, 14)))

    benchmark, pool = [text() for _ in range(12)], [text() for _ in range(300)] + [""]
    found = Filter({"b": [(str(i), t) for i, t in enumerate(benchmark)]}, N, 0.5)
    for t, match in zip(pool, found.matches(pool), strict=True):
        wanted = plain(t, benchmark, N, 0.5)
        if match is None or match.kind == "ngrams":
            assert (match and (match.number, pytest.approx(match.overlap))) == wanted
        else:
            other = benchmark[match.number]
            assert words(other).split() == words(t).split() or "".join(other.split()) == "".join(t.split())
    assert found.matches([]) == [] and not Filter({}) and found.matches(pool[:1]) == found.matches(pool)[:1]


def test_n_grams_do_not_span_questions():
    grams = Grams.of([words(t) for t in ("a b c d e", "", "a b", "! a b c d e")], N)
    assert grams.first_Q.tolist() == [0, 2, 2, 2, 4] and grams.n_words_Q.tolist() == [5, 0, 2, 5]
    assert grams.hash_G[:2].tolist() == grams.hash_G[2:].tolist() and len(set(grams.hash_G.tolist())) == 2


def test_symbols_count_in_short_questions_only():
    known = Filter(
        {"b": [("0", "What is 2 + 3?"), ("1", "Take the sum of 2 + 3 and one more, then halve it, twice or so.")]}
    )
    short, other, long = known.matches(
        ["what is 2+3?", "What is 2 - 3?", "take the sum of 2-3 and one more then halve it twice or so"]
    )
    assert (known.named[short.number], other, long.kind) == (("b", "0"), None, "exact")


def test_phrases_of_a_whole_benchmark_are_no_match():
    phrase = "Solve the following problem and give the answer in a box after thinking it over with care:"
    asked = [(str(i), f"{phrase} {i} plus {i} is what?") for i in range(BOILERPLATE + 1)]
    (match, exact) = Filter({"b": asked}).matches([f"{phrase} how tall is a giraffe?", asked[3][1]])
    assert match is None and exact.number == 3
