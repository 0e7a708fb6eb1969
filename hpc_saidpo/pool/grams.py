"""Canonical texts as arrays of hashed tokens: n-grams of words, whole questions, spans of tokens, by whole arrays.

Shape letters in addition to those of `records`: X bytes, T tokens, W words, G n-grams; Q the questions of one call.
A hash is a polynomial modulo 2^64. Pure.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BLANK = 32
# Odd, otherwise arbitrary: hashes are polynomials in these factors modulo 2^64.
_BYTE, _WORD_FACTOR, _MIX = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD))
_NUMBER = np.uint64(0x2545F4914F6CDD1D)  # the hash of every number
_LETTER_OR_DIGIT = np.array([chr(c).isalnum() or c >= 128 for c in range(256)])  # of the first byte of a token
_DIGIT = np.array([48 <= c < 58 for c in range(256)])


@dataclass(frozen=True)
class Tokens:
    """The tokens of some questions, question after question.

    Attributes:
        hash_T: 64-bit hash of each token, uint64.
        first_Q: [questions + 1] index of each question's first token.
        is_word_T: the token is a word or number, not a symbol.
        is_number_T: the token is a number.
    """

    hash_T: np.ndarray
    first_Q: np.ndarray
    is_word_T: np.ndarray
    is_number_T: np.ndarray

    @classmethod
    def extract(cls, canonical_Q: Sequence[str]) -> Tokens:
        """Cut canonical texts (`canonical.canonical`) at their blanks."""
        bytes_Q = [text.encode("utf-8", "surrogatepass") for text in canonical_Q]
        byte_X = np.frombuffer(b" " + b" ".join(bytes_Q) + b" ", dtype=np.uint8)
        edge = np.diff((byte_X != _BLANK).view(np.int8))
        start_T, end_T = np.flatnonzero(edge == 1) + 1, np.flatnonzero(edge == -1) + 1
        beyond_Q = np.cumsum([len(text) + 1 for text in bytes_Q]) + 1
        hash_T = mixed(Spans(byte_X, _BYTE).hash(start_T, end_T), 29)
        first_byte_T = byte_X[start_T]
        return cls(
            hash_T,
            np.concatenate([[0], np.searchsorted(start_T, beyond_Q)]),
            _LETTER_OR_DIGIT[first_byte_T],
            _DIGIT[first_byte_T],
        )

    @property
    def n_tokens_Q(self) -> np.ndarray:
        """Number of tokens of each question."""
        return np.diff(self.first_Q)

    def select(self, chosen_T: np.ndarray) -> Tokens:
        """Return some tokens (a mask) of every question."""
        first_Q = np.concatenate([[0], np.cumsum(chosen_T)])[self.first_Q]
        return Tokens(self.hash_T[chosen_T], first_Q, self.is_word_T[chosen_T], self.is_number_T[chosen_T])

    def words(self) -> Tokens:
        """Return the words and numbers of every question."""
        return self.select(self.is_word_T)

    def masked(self) -> Tokens:
        """Return the questions with one and the same token for every run of numbers."""
        hash_T = np.where(self.is_number_T, _NUMBER, self.hash_T)
        follows_T = np.concatenate([[False], self.is_number_T[1:] & self.is_number_T[:-1]])[: len(hash_T)]
        follows_T[self.first_Q[:-1][self.n_tokens_Q > 0]] = False
        return Tokens(hash_T, self.first_Q, self.is_word_T, self.is_number_T).select(~follows_T)

    def whole(self) -> np.ndarray:
        """Return the hash of each whole question: uint64 [Q]; 0 for a question without tokens."""
        return np.where(self.n_tokens_Q > 0, self.spans(self.first_Q[:-1], self.first_Q[1:]), np.uint64(0))

    def windows(self, length: int) -> np.ndarray:
        """Return the hash of the `length` tokens from each token on: uint64 [T - length + 1]; some span questions."""
        start = np.arange(max(0, len(self.hash_T) - length + 1))
        return self.spans(start, start + length)

    def spans(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return the hashes of some spans of tokens."""
        return mixed(self._spans.hash(start, end), 31)

    @functools.cached_property
    def _spans(self) -> Spans:
        return Spans(self.hash_T, _WORD_FACTOR)


@dataclass(frozen=True)
class Grams:
    """The n-grams of some questions, question after question.

    Attributes:
        hash_G: 64-bit hash of each n-gram, uint64.
        first_Q: [questions + 1] index of each question's first n-gram.
    """

    hash_G: np.ndarray
    first_Q: np.ndarray

    @classmethod
    def extract(cls, words: Tokens, n: int) -> Grams:
        """Make all n-grams of words: a million questions are 50 million n-grams."""
        n_words_Q = words.n_tokens_Q
        n_grams_Q = np.maximum(n_words_Q - n + 1, 0)
        first_Q = np.concatenate([[0], np.cumsum(n_grams_Q)])
        # The i-th n-gram of a question begins at its i-th word: skip the words at which no n-gram begins.
        skipped_Q = np.cumsum(n_words_Q) - n_words_Q - first_Q[:-1]
        start_G = np.arange(first_Q[-1]) + np.repeat(skipped_Q, n_grams_Q)
        return cls(words.spans(start_G, start_G + n), first_Q)

    def count_distinct(self, some: np.ndarray) -> np.ndarray:
        """Return the number of distinct n-grams of some questions: int [questions], 0 for all others."""
        n_Q = np.diff(self.first_Q)[some]
        place = np.arange(n_Q.sum()) + np.repeat(self.first_Q[some] - np.cumsum(n_Q) + n_Q, n_Q)
        question, hash_G = np.repeat(some, n_Q), self.hash_G[place]
        order = np.lexsort((hash_G, question))
        repeats = (np.diff(hash_G[order]) == 0) & (np.diff(question[order]) == 0)
        return np.bincount(
            question[order][~np.r_[np.zeros(min(len(order), 1), bool), repeats]], minlength=len(self.first_Q) - 1
        )


class Spans:
    """Polynomial hashes of values[start:end] for many spans at once: differences of one running sum."""

    def __init__(self, values: np.ndarray, factor: np.uint64):
        self._inverse = _powers(len(values) + 1, np.uint64(pow(int(factor), -1, 2**64)))
        products = values * _powers(len(values), factor)
        self._total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(products, dtype=np.uint64)])

    def hash(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        return (self._total[end] - self._total[start]) * self._inverse[start]


def mixed(hashes: np.ndarray, shift: int) -> np.ndarray:
    """Return hashes that are not linear in the hashed values any more."""
    hashes = hashes * _MIX
    return hashes ^ hashes >> np.uint64(shift)


_POWERS: dict[int, np.ndarray] = {}


def _powers(n: int, factor: np.uint64) -> np.ndarray:
    """Return factor^0 ... factor^(n - 1), uint64; the longest result so far is kept."""
    known = _POWERS.get(int(factor))
    if known is None or len(known) < n:
        known = _POWERS[int(factor)] = np.cumprod(np.r_[np.uint64(1), np.full(2 * n, factor)], dtype=np.uint64)
    return known[:n]
