"""The filter has the same matches as a plain comparison, whatever the texts, and finds questions in other notation."""

import random

import pytest

from hpc_saidpo.pool.canonical import canonical
from hpc_saidpo.pool.decontaminate import CONTAINED, EQUAL, NGRAMS, NUMBERS, Filter
from hpc_saidpo.pool.grams import Grams, Tokens
from hpc_saidpo.pool.indexes import BOILERPLATE

N = 4


def plain(text, benchmark, n, threshold):
    """Benchmark question and share by sets of tuples; None without a match by n-grams."""

    def grams(token_T):
        return {tuple(token_T[i : i + n]) for i in range(len(token_T) - n + 1)}

    def tokens(t):
        return canonical(t).split()

    best = (0.0, None)
    for number, other in enumerate(benchmark):
        ours, theirs = (grams([w for w in tokens(t) if w[0].isalnum()]) for t in (text, other))
        if ours and theirs:
            less, more = sorted((len(ours), len(theirs)))
            share, of_longer = len(ours & theirs) / less, len(ours & theirs) / more
            ours, theirs = grams(tokens(text)), grams(tokens(other))
            of_tokens = len(ours & theirs) / min(len(ours), len(theirs))
            much = (1 + threshold) / 2
            enough = of_longer > much or ((of_longer > threshold or share > much) and of_tokens > threshold)
            if share > threshold and enough:
                best = max(best, (share, -number), key=lambda x: (x[0], x[1] or 0))
    return (-best[1], best[0]) if best[1] is not None else None


@pytest.mark.parametrize("seed", range(8))
def test_the_same_matches_as_by_comparing_sets(seed):
    rng = random.Random(seed)
    vocabulary = ["ab", "B", "c1", "Größe", "½", "x_2", "問題", "the", "of", "$y$"]

    def text():
        return rng.choice([" ", ", ", "\n"]).join(rng.choice(vocabulary) for _ in range(rng.randrange(0, 14)))

    def edited(t):
        word_W = t.split(" ")
        word_W[rng.randrange(len(word_W))] = rng.choice(vocabulary)
        return " ".join(word_W + rng.choices(vocabulary, k=rng.randrange(3)))

    benchmark = [text() for _ in range(12)]
    pool = [text() for _ in range(200)] + [edited(rng.choice(benchmark)) for _ in range(100)] + [""]
    known = Filter({"b": [(str(i), t) for i, t in enumerate(benchmark)]}, N, 0.5)
    n_found = 0
    for t, match in zip(pool, known.match(pool), strict=True):
        if match is None or match.kind == NGRAMS:
            assert (match and (match.number, pytest.approx(match.overlap))) == plain(t, benchmark, N, 0.5)
            n_found += match is not None
        elif match.kind == EQUAL:
            assert canonical(benchmark[match.number]) == canonical(t)
        else:
            forms = [f" {canonical(other)} " for other in (benchmark[match.number], t)]
            assert forms[0] in forms[1] or forms[1] in forms[0]
    assert n_found > 3
    assert known.match([]) == [] and not Filter({}) and known.match(pool[:1]) == known.match(pool)[:1]


def test_n_grams_do_not_span_questions():
    tokens = Tokens.extract(["a b c d e", "", "a b", "+ a b c d e"])
    grams = Grams.extract(tokens.words(), N)
    assert grams.first_Q.tolist() == [0, 2, 2, 2, 4] and tokens.n_tokens_Q.tolist() == [5, 0, 2, 6]
    assert grams.hash_G[:2].tolist() == grams.hash_G[2:].tolist() and len(set(grams.hash_G.tolist())) == 2


def test_masked_questions_differ_in_words_only():
    whole = (
        Tokens.extract(["take 3 of 1 000", "take 25 of 7", "take 25 of x", "7", "", "8 9 a"]).masked().whole().tolist()
    )
    assert whole[0] == whole[1] != whole[2] and whole[4] == 0 and len(set(whole)) == 5


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
    grams = Grams.extract(Tokens.extract(texts).words(), N)
    hash_W = [[mixed(polynomial(word.encode(), byte_factor), 29) for word in t.split()] for t in texts]
    expected = [mixed(polynomial(h[i : i + N], word_factor), 31) for h in hash_W for i in range(len(h) - N + 1)]
    assert grams.hash_G.tolist() == expected and len(set(expected)) == 5 + 2


BENCHMARK = {
    "sum": "What is 2 + 3?",
    "binomial": r"Compute $\dbinom{16}{5}$.",
    "wrapped": "Find the least prime above $7 - 4$. Answer with a number.",
    "divisible": "How many positive integers less than 500 are divisible by 7?",
    "long": "Take the sum of 2 + 3 and one more, then halve it, twice or so, and write the number down.",
}


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("what is 2+3 ?", ("sum", EQUAL)),
        ("Calculate (3 + 2)", ("sum", EQUAL)),
        ("What is 2 - 3?", None),
        ("What is 2 + 3 modulo 4?", None),
        ("What is 2 + 3 + 4?", None),
        ("1 + 2 + 3 = ?", None),
        (r"Compute \( \binom{16}{5} \)", ("binomial", EQUAL)),
        (r"Please evaluate \binom{16}5", ("binomial", EQUAL)),
        (r"What is the value of ${16 \choose 5}$?", ("binomial", EQUAL)),
        (r"Simplify $\binom{16}{5}$.", None),
        ("Determine the least prime above $7 - 4$. Answer with a number.", ("wrapped", EQUAL)),
        (r"Problem 7: Compute ${16 \choose 5}$ Give your answer as an integer.", ("binomial", CONTAINED)),
        ("Please think. Compute $\\binom{16}5$\n\nAnswer:", ("binomial", CONTAINED)),
        (r"Compute $\binom{16}{5}$ (answer as a number)", ("binomial", CONTAINED)),
        (r"Compute $\binom{16}{5}$ modulo 7.", None),
        ("Find the least prime above $7-4$", ("wrapped", CONTAINED)),
        ("Answer with a number.", None),
        ("Tell me: how many positive integers less than 500 are divisible by 7? Think.", ("divisible", CONTAINED)),
        ("How many positive integers less than 1,300 are divisible by 11?", ("divisible", NUMBERS)),
        (BENCHMARK["long"].replace("twice", "once"), ("long", NGRAMS)),
        (BENCHMARK["long"].upper(), ("long", EQUAL)),
        ("", None),
        ("?", None),
    ],
)
def test_questions_in_other_notation_and_in_other_sentences(text, wanted):
    known = Filter({"b": list(BENCHMARK.items())}, 13 if wanted is None or wanted[1] != NGRAMS else 5)
    (found,), (leak,) = known.compare([text]), known.match([text])
    assert (found and (known.named[found.number][1], found.kind)) == wanted
    assert leak == (None if wanted is None or wanted[1] == NUMBERS else found)


def test_a_short_question_in_a_very_long_text_is_found():
    known = Filter({"b": list(BENCHMARK.items())})
    text = "One more sentence of an old story (which goes on). " * 2000 + "Compute ${16 \\choose 5}$. And so on. " * 3
    assert known.match([text])[0].kind == CONTAINED


def test_phrases_of_a_whole_benchmark_are_no_match():
    phrase = "Solve the following problem and give the answer in a box after thinking it over with care:"
    for n_questions in (8, BOILERPLATE + 1):
        questions = [(str(i), f"{phrase} {i} plus {i} is what?") for i in range(n_questions)]
        (match, equal) = Filter({"b": questions}).match([f"{phrase} how tall is a giraffe?", questions[3][1]])
        assert match is None and equal.number == 3


def test_the_same_words_around_another_formula_are_no_match():
    words = "Determine if the graph of the equation below is a parabola, circle, ellipse, hyperbola, point, or empty."
    known = Filter({"b": [("1", f"{words} $(x-3)^2 + (y+1)^2 + 4xy = 10$")]})
    other, same = known.match([f"{words} $7x^2 - 50y^2 - 10x + 25 = 0$", f"{words} $(x - 3)^2+(y + 1)^2+4 x y = 10.$"])
    assert other is None and same.kind == EQUAL
