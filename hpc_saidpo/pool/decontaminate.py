"""Pool questions that occur in a benchmark too: exact matches after normalisation, and long common n-grams.

Shape letters in addition to those of `records`: X bytes, W words, G n-grams; Q the questions of one call.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"[^\W_]+")
# For ASCII texts a table makes the same words, several times as fast; most questions are ASCII.
_TABLE = bytes(ord(chr(c).lower()) if c < 128 and chr(c).isalnum() else 32 for c in range(256))
_BLANK = 32
_SIEVE_BITS = 24
BOILERPLATE = 50  # an n-gram of more benchmark questions than this is a common phrase and is no evidence
# Odd, otherwise arbitrary: hashes are polynomials in these factors modulo 2^64.
_BYTE, _WORD_FACTOR, _MIX = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD))


@dataclass(frozen=True, slots=True)
class Match:
    """The benchmark question that a pool question equals or overlaps with.

    Attributes:
        number: of the benchmark question in `Filter.named`.
        kind: exact or ngrams.
        overlap: number of common n-grams / number of distinct n-grams of the question that has fewer of them.
    """

    number: int
    kind: str
    overlap: float


def words(text: str) -> bytes:
    """Return the words of a text in lower case, separated by blanks, in UTF-8: n-grams are made of them.

    Words consist of letters and digits; compatibility forms are resolved (NFKC). In UTF-8 no byte of another character
    equals a blank.
    """
    if text.isascii():
        return text.encode().translate(_TABLE)
    return " ".join(_WORD.findall(_folded(text))).encode("utf-8", "surrogatepass")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


@dataclass(frozen=True)
class Grams:
    """The n-grams of some questions, question after question.

    Attributes:
        hash_G: 64-bit hash of each n-gram, uint64.
        first_Q: [questions + 1] index of each question's first n-gram.
        n_words_Q: number of words of each question.
    """

    hash_G: np.ndarray
    first_Q: np.ndarray
    n_words_Q: np.ndarray

    @classmethod
    def extract(cls, words_Q: Sequence[bytes], n: int) -> Grams:
        """Make all n-grams of texts from `words`, by whole arrays: a million questions are 50 million n-grams."""
        byte_X = np.frombuffer(b" " + b" ".join(words_Q) + b" ", dtype=np.uint8)
        edge = np.diff((byte_X != _BLANK).view(np.int8))
        start_W, end_W = np.flatnonzero(edge == 1) + 1, np.flatnonzero(edge == -1) + 1
        hash_W = _spans(byte_X, start_W, end_W, _BYTE) * _MIX
        hash_W ^= hash_W >> np.uint64(29)
        beyond_Q = np.cumsum([len(text) + 1 for text in words_Q]) + 1
        n_words_Q = np.diff(np.searchsorted(start_W, beyond_Q), prepend=0)
        n_grams_Q = np.maximum(n_words_Q - n + 1, 0)
        first_Q = np.concatenate([[0], np.cumsum(n_grams_Q)])
        # The i-th n-gram of a question begins at its i-th word: skip the words at which no n-gram begins.
        skipped_Q = np.cumsum(n_words_Q) - n_words_Q - first_Q[:-1]
        start_G = np.arange(first_Q[-1]) + np.repeat(skipped_Q, n_grams_Q)
        hash_G = _spans(hash_W, start_G, start_G + n, _WORD_FACTOR) * _MIX
        return cls(hash_G ^ hash_G >> np.uint64(31), first_Q, n_words_Q)

    def count_distinct(self, some: np.ndarray) -> np.ndarray:
        """Return the number of distinct n-grams of some questions: int [questions], 0 for all others."""
        n_Q = np.diff(self.first_Q)[some]
        place = np.arange(n_Q.sum()) + np.repeat(self.first_Q[some] - np.cumsum(n_Q) + n_Q, n_Q)
        question, hash_G = np.repeat(some, n_Q), self.hash_G[place]
        order = np.lexsort((hash_G, question))
        repeats = (np.diff(hash_G[order]) == 0) & (np.diff(question[order]) == 0)
        return np.bincount(
            question[order][~np.r_[np.zeros(min(len(order), 1), bool), repeats]], minlength=len(self.n_words_Q)
        )


def _spans(values: np.ndarray, start: np.ndarray, end: np.ndarray, factor: np.uint64) -> np.ndarray:
    """Return the polynomial hash of values[start:end] for many spans at once: differences of one running sum."""
    power, inverse = _powers(len(values), factor), _powers(len(values), np.uint64(pow(int(factor), -1, 2**64)))
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * power, dtype=np.uint64)])
    return (total[end] - total[start]) * inverse[start]


_POWERS: dict[int, np.ndarray] = {}


def _powers(n: int, factor: np.uint64) -> np.ndarray:
    """Return factor^0 ... factor^(n - 1), uint64; the longest result so far is kept."""
    known = _POWERS.get(int(factor))
    if known is None or len(known) < n:
        known = _POWERS[int(factor)] = np.cumprod(np.r_[np.uint64(1), np.full(2 * n, factor)], dtype=np.uint64)
    return known[:n]


class Filter:
    """The benchmark questions that a pool is compared with.

    Args:
        benchmarks: (id, text) of every question, by benchmark.
        n: length of the n-grams, words.
        threshold: a larger share of common n-grams is a match.

    Attributes:
        named: (benchmark, id) of every question.
    """

    def __init__(self, benchmarks: Mapping[str, Iterable[tuple[str, str]]], n: int = 13, threshold: float = 0.5):
        self.n, self.threshold = n, threshold
        flat = [(name, id, text) for name, questions in benchmarks.items() for id, text in questions]
        self.named = [(name, id) for name, id, _ in flat]
        words_Q = [words(text) for _, _, text in flat]
        grams = Grams.extract(words_Q, n)
        self._exact: dict[str | bytes, int] = {}
        for number, ((_, _, text), words_of_text) in enumerate(zip(flat, words_Q, strict=True)):
            self._exact.setdefault(self._key(text, words_of_text, int(grams.n_words_Q[number])), number)
        number_G = np.repeat(np.arange(len(flat)), np.diff(grams.first_Q))
        pairs = np.unique(np.stack([grams.hash_G, number_G.astype(np.uint64)]), axis=1)
        self._n_grams = np.bincount(pairs[1].astype(np.int64), minlength=len(flat))
        _, place, n_holders = np.unique(pairs[0], return_inverse=True, return_counts=True)
        pairs = pairs[:, n_holders[place] <= BOILERPLATE]
        # Sorted by hash: the benchmark questions with the same n-gram are neighbours.
        self._hash_G, begin_G = np.unique(pairs[0], return_index=True)
        self._number, self._begin_G = pairs[1].astype(np.int64), np.append(begin_G, pairs.shape[1])
        self._sieve = np.zeros(2**_SIEVE_BITS, dtype=bool)
        self._sieve[self._hash_G >> np.uint64(64 - _SIEVE_BITS)] = True

    def __bool__(self) -> bool:
        return bool(self.named)

    def _key(self, text: str, words_of_text: bytes, n_words: int) -> str | bytes:
        """Return a key that equal questions share. In short questions symbols count: 2 + 3 is not 2 - 3."""
        return b" ".join(words_of_text.split()) if n_words >= self.n else "".join(_folded(text).split())

    def match(self, texts: Sequence[str]) -> list[Match | None]:
        """Return the best matching benchmark question of each text; None for a text without a match."""
        matches: list[Match | None] = [None] * len(texts)
        if not self:
            return matches
        words_Q = [words(text) for text in texts]
        grams = Grams.extract(words_Q, self.n)
        place_G, entry_G = self._shared(grams)
        question_G = np.searchsorted(grams.first_Q, place_G, side="right") - 1
        for q, number, share in self._overlaps(grams, question_G, entry_G):
            matches[q] = Match(number, "ngrams", share)
        # Equal questions share n-grams, or have none, or a single one, which may be too common to be compared.
        candidates: set[int] = {*np.flatnonzero(grams.n_words_Q <= self.n).tolist(), *question_G.tolist()}
        for q in candidates:
            equal = self._exact.get(self._key(texts[q], words_Q[q], int(grams.n_words_Q[q])))
            if equal is not None:
                matches[q] = Match(equal, "exact", 1.0)
        return matches

    def _shared(self, grams: Grams) -> tuple[np.ndarray, np.ndarray]:
        """Return the n-grams that are in a benchmark, and their positions in `_hash_G`.

        They are few: for nearly all others the sieve saves the binary search.
        """
        place_G = np.flatnonzero(self._sieve[grams.hash_G >> np.uint64(64 - _SIEVE_BITS)])
        entry_G = np.searchsorted(self._hash_G, grams.hash_G[place_G])
        is_there = np.append(self._hash_G, np.uint64(0))[entry_G] == grams.hash_G[place_G]
        is_there &= entry_G < len(self._hash_G)
        return place_G[is_there], entry_G[is_there]

    def _overlaps(self, grams: Grams, question_G: np.ndarray, entry_G: np.ndarray) -> Iterator[tuple[int, int, float]]:
        """Yield (question, number of the benchmark question, share) of matches above the threshold.

        A question may have several: the last one is its best.

        Args:
            question_G: question of each n-gram that is in a benchmark.
            entry_G: its position in `_hash_G`.
        """
        n_distinct_Q = grams.count_distinct(np.unique(question_G))
        # Two numbers as one: sorting is many times as fast as for pairs.
        question_G, entry_G = np.divmod(np.unique(question_G * len(self._hash_G) + entry_G), max(1, len(self._hash_G)))
        begin_G = self._begin_G[entry_G]
        n_G = self._begin_G[entry_G + 1] - begin_G
        # One row for each n-gram and each benchmark question with it.
        row = np.arange(n_G.sum()) + np.repeat(begin_G - np.cumsum(n_G) + n_G, n_G)
        pairs = np.repeat(question_G, n_G) * len(self.named) + self._number[row]
        pairs, n_shared = np.unique(pairs, return_counts=True)
        question, number = np.divmod(pairs, len(self.named))
        share = n_shared / np.minimum(n_distinct_Q[question], self._n_grams[number])
        for i in np.lexsort((-number, share)):  # the best match last; of equal ones the first question in the benchmark
            if share[i] > self.threshold:
                yield int(question[i]), int(number[i]), float(share[i])
