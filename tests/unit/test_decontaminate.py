"""The filter has the same matches as a plain comparison, whatever the texts."""

import random

import pytest

from hpc_saidpo.pool.decontaminate import BOILERPLATE, Filter, Grams, words

N = 4


def plain(text, benchmark, n, threshold):
    """Benchmark question and share by sets of tuples; None without a match."""

    def grams(t):
        word_W = words(t).split()
        return {tuple(word_W[i : i + n]) for i in range(len(word_W) - n + 1)}

    best = (0.0, None)
    for number, other in enumerate(benchmark):
        ours, theirs = grams(text), grams(other)
        if ours and theirs:
            share = len(ours & theirs) / min(len(ours), len(theirs))
            best = max(best, (share, -number), key=lambda x: (x[0], x[1] or 0))
    return (-best[1], best[0]) if best[0] > threshold else None


@pytest.mark.parametrize("seed", range(8))
def test_the_same_matches_as_by_comparing_sets(seed):
    rng = random.Random(seed)
    vocabulary = ["a", "B", "c1", "Größe", "½", "x_2", "問題", "the", "of", "$y$"]

    def text():
        return rng.choice([" ", ", ", "\n"]).join(rng.choice(vocabulary) for _ in range(rng.randrange(0, 14)))

    benchmark, pool = [text() for _ in range(12)], [text() for _ in range(300)] + [""]
    known = Filter({"b": [(str(i), t) for i, t in enumerate(benchmark)]}, N, 0.5)
    for t, match in zip(pool, known.match(pool), strict=True):
        wanted = plain(t, benchmark, N, 0.5)
        if match is None or match.kind == "ngrams":
            assert (match and (match.number, pytest.approx(match.overlap))) == wanted
        else:
            other = benchmark[match.number]
            assert words(other).split() == words(t).split() or "".join(other.split()) == "".join(t.split())
    assert known.match([]) == [] and not Filter({}) and known.match(pool[:1]) == known.match(pool)[:1]


def test_n_grams_do_not_span_questions():
    grams = Grams.extract([words(t) for t in ("a b c d e", "", "a b", "! a b c d e")], N)
    assert grams.first_Q.tolist() == [0, 2, 2, 2, 4] and grams.n_words_Q.tolist() == [5, 0, 2, 5]
    assert grams.hash_G[:2].tolist() == grams.hash_G[2:].tolist() and len(set(grams.hash_G.tolist())) == 2


def polynomial(values, factor):
    """The sum of value_i * factor^i modulo 2^64, by Python's integers."""
    return sum(int(value) * pow(factor, i, 2**64) for i, value in enumerate(values)) % 2**64


def test_hashes_are_polynomials_of_mixed_polynomials():
    """Both levels are mixed by shifts, each exactly so: without them, hashes would be linear in the bytes."""
    byte_factor, word_factor, mix = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD

    def mixed(hash, shift):
        hash = hash * mix % 2**64
        return hash ^ hash >> shift

    texts = ["how many sheep are 3 sheep and 4", "größe 問題 x y z", "a b c"]
    grams = Grams.extract([words(t) for t in texts], N)
    hash_W = [[mixed(polynomial(word, byte_factor), 29) for word in words(t).split()] for t in texts]
    expected = [mixed(polynomial(h[i : i + N], word_factor), 31) for h in hash_W for i in range(len(h) - N + 1)]
    assert grams.hash_G.tolist() == expected and len(set(expected)) == 5 + 2


def test_symbols_count_in_short_questions_only():
    known = Filter(
        {"b": [("0", "What is 2 + 3?"), ("1", "Take the sum of 2 + 3 and one more, then halve it, twice or so.")]}
    )
    short, other, long = known.match(
        ["what is 2+3?", "What is 2 - 3?", "take the sum of 2-3 and one more then halve it twice or so"]
    )
    assert (known.named[short.number], other, long.kind) == (("b", "0"), None, "exact")


def test_phrases_of_a_whole_benchmark_are_no_match():
    phrase = "Solve the following problem and give the answer in a box after thinking it over with care:"
    questions = [(str(i), f"{phrase} {i} plus {i} is what?") for i in range(BOILERPLATE + 1)]
    (match, exact) = Filter({"b": questions}).match([f"{phrase} how tall is a giraffe?", questions[3][1]])
    assert match is None and exact.number == 3
