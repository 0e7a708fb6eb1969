"""Sorted hashes of known questions, and the search for those of other texts in them, by whole arrays.

Shape letters in addition to those of `records`: T tokens, G n-grams, U distinct hashes; Q the questions of one call.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .grams import Grams, Tokens

# An n-gram of more questions of one benchmark than this number, or this share, is a common phrase and no evidence. In a
# small benchmark a few questions may share one.
BOILERPLATE, BOILERPLATE_SHARE, BOILERPLATE_LEAST = 50, 0.1, 4
_SIEVE_BITS = 23


class Hashes:
    """Distinct hashes with one or more values each.

    Args:
        hash_V: hash of each value, uint64; equal ones need not be neighbours.
        value_V: int64.
    """

    def __init__(self, hash_V: np.ndarray, value_V: np.ndarray):
        order = np.argsort(hash_V, kind="stable")
        self.value_V = value_V[order]
        self._hash_U, begin_U = np.unique(hash_V[order], return_index=True)
        self._begin_U = np.append(begin_U, len(hash_V))
        # For nearly all hashes that are searched for, the sieve saves the binary search.
        self._sieve = np.zeros(2**_SIEVE_BITS, dtype=bool)
        self._sieve[self._hash_U >> np.uint64(64 - _SIEVE_BITS)] = True

    def __len__(self) -> int:
        """Number of distinct hashes."""
        return len(self._hash_U)

    def find(self, hash_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of known hashes among some, and the number of each as a distinct hash."""
        if not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        place = np.flatnonzero(self._sieve[hash_N >> np.uint64(64 - _SIEVE_BITS)])
        entry = np.minimum(np.searchsorted(self._hash_U, hash_N[place]), len(self) - 1)
        is_there = self._hash_U[entry] == hash_N[place]
        return place[is_there], entry[is_there]

    def values(self, entry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return, for each value of some distinct hashes, its place in `entry`, and the value."""
        begin, n = self._begin_U[entry], self._begin_U[entry + 1] - self._begin_U[entry]
        row = np.arange(n.sum()) + np.repeat(begin - np.cumsum(n) + n, n)
        return np.repeat(np.arange(len(entry)), n), self.value_V[row]


class Whole:
    """The numbers of questions by the hash of the whole question: of equal hashes the first. A hash of 0 means none.

    Args:
        hash_Q: uint64 [Q].
        number_Q: number of each question.
    """

    def __init__(self, hash_Q: np.ndarray, number_Q: np.ndarray):
        first_Q = np.sort(np.unique(hash_Q, return_index=True)[1])
        first_Q = first_Q[hash_Q[first_Q] != 0]
        self._hashes = Hashes(hash_Q[first_Q], number_Q[first_Q])

    def find(self, hash_Q: np.ndarray, text_Q: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yield (text, number of the question) for each hash that is known.

        Args:
            text_Q: number of the text of each hash.
        """
        place, entry = self._hashes.find(hash_Q)
        yield from zip(text_Q[place].tolist(), self._hashes.value_V[entry].tolist(), strict=True)


class Endings:
    """Short questions by their last tokens, to find them inside longer texts.

    Args:
        tokens: of all known questions.
        some_Q: numbers of the short ones.
        length: number of last tokens; questions with fewer are left out, and those with `longer` or more.
    """

    def __init__(self, tokens: Tokens, some_Q: np.ndarray, length: int, longer: int | None = None):
        n_Q = tokens.n_tokens_Q[some_Q]
        some_Q = some_Q[(n_Q >= length) & ((n_Q < longer) if longer else True)]
        self._length, self._n_tokens_Q, self._whole_Q = length, tokens.n_tokens_Q, tokens.whole()
        self._hashes = Hashes(tokens.windows(length)[tokens.first_Q[some_Q + 1] - length], some_Q)

    def find(self, tokens: Tokens) -> Iterator[tuple[int, int]]:
        """Yield (text, number of the question) where the tokens of a text contain all those of a question."""
        place, entry = self._hashes.find(tokens.windows(self._length))
        which, number = self._hashes.values(entry)
        end = place[which] + self._length
        start = end - self._n_tokens_Q[number]
        text = np.searchsorted(tokens.first_Q, end, side="left") - 1
        inside = start >= tokens.first_Q[text]
        text, number, start, end = text[inside], number[inside], start[inside], end[inside]
        same = tokens.spans(start, end) == self._whole_Q[number]
        yield from zip(text[same].tolist(), number[same].tolist(), strict=True)


class Phrases:
    """The n-grams of known questions, without those that are common phrases of a benchmark.

    Args:
        benchmark_Q: name of each question's benchmark.
        threshold: pairs with a smaller share of common n-grams are not searched for.
    """

    def __init__(self, grams: Grams, benchmark_Q: Sequence[str], threshold: float):
        self._threshold = threshold
        self._n_questions = len(benchmark_Q)
        number_G = np.repeat(np.arange(len(benchmark_Q)), np.diff(grams.first_Q))
        pairs = np.unique(np.stack([grams.hash_G, number_G.astype(np.uint64)]), axis=1)
        hash_G, number_G = pairs[0], pairs[1].astype(np.int64)
        self._n_grams_Q = np.bincount(number_G, minlength=len(benchmark_Q))
        names, benchmark = np.unique(np.array(benchmark_Q, dtype=str), return_inverse=True)
        limit = np.clip(np.bincount(benchmark) * BOILERPLATE_SHARE, BOILERPLATE_LEAST, BOILERPLATE)
        _, place_G = np.unique(hash_G, return_inverse=True)
        holders, n_holders = np.unique(place_G * len(names) + benchmark[number_G], return_counts=True)
        is_common = np.zeros(len(hash_G), dtype=bool)
        is_common[holders[n_holders > limit[holders % max(1, len(names))]] // max(1, len(names))] = True
        kept_G = ~is_common[place_G]
        self._hashes = Hashes(hash_G[kept_G], number_G[kept_G])

    def overlaps(self, grams: Grams) -> Iterator[tuple[int, int, float, float]]:
        """Yield (text, number of the question, share of common n-grams of the one with fewer, of the one with more).

        A text may have several: the last one is its best.
        """
        place_G, entry_G = self._hashes.find(grams.hash_G)
        text_G = np.searchsorted(grams.first_Q, place_G, side="right") - 1
        n_distinct_Q = grams.count_distinct(np.unique(text_G))
        # Two numbers as one: sorting is many times as fast as for pairs.
        text_G, entry_G = np.divmod(np.unique(text_G * len(self._hashes) + entry_G), max(1, len(self._hashes)))
        which, number = self._hashes.values(entry_G)
        pairs, n_shared = np.unique(text_G[which] * self._n_questions + number, return_counts=True)
        text, number = np.divmod(pairs, max(1, self._n_questions))
        n_text, n_known = n_distinct_Q[text], self._n_grams_Q[number]
        share, of_longer = n_shared / np.minimum(n_text, n_known), n_shared / np.maximum(n_text, n_known)
        order = np.lexsort((-number, share))  # the best last; of equal ones the first question
        order = order[share[order] > self._threshold]
        columns = (column[order].tolist() for column in (text, number, share, of_longer))
        yield from zip(*columns, strict=True)
