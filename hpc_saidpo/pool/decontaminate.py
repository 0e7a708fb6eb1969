"""The one filter against leaked questions: finds the questions of some texts that other texts ask too.

Classes of a match, of which the first that holds counts:

- equal: the same canonical text (`canonical`), if need be after other words for "compute", or the same arithmetic
  (`expressions`).
- contained: a short question inside a longer text, or the text inside a known question, with other sentences around.
- ngrams: the one of both that has fewer n-grams of words shares more than half of them, and more than half of those of
  all tokens, so that the same words around another formula are no match. The other one shares more than half of its
  n-grams of words, too; if it is longer because of a wrapper, three quarters of the first suffice.
- numbers: the same wording with other numbers. Reported, and no leak by itself.

Shape letters in addition to those of `records`: T tokens, G n-grams; Q the questions of one call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .canonical import canonical
from .expressions import expression
from .grams import Grams, Tokens
from .indexes import Endings, Phrases, Whole
from .wrappers import Ends, cores, n_requesting

EQUAL, CONTAINED, NGRAMS, NUMBERS = KINDS = ("equal", "contained", "ngrams", "numbers")
LEAKS = (EQUAL, CONTAINED, NGRAMS)
# Last tokens of a short question by which it is searched for in longer texts; those with enough use the larger number.
_FEW, _MORE = 3, 6
_WORDED = 3  # words besides numbers that the wording of a question has at least


@dataclass(frozen=True, slots=True)
class Match:
    """The known question that a text asks too.

    Attributes:
        number: of the known question in `Filter.named`.
        kind: its class, one of KINDS.
        overlap: number of common n-grams / number of distinct n-grams of the question that has fewer of them; 1 for
            equal and contained questions, 0 for other numbers.
    """

    number: int
    kind: str
    overlap: float


class Filter:
    """Known questions, as of benchmarks, that texts are compared with.

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
        texts = [text for _, _, text in flat]
        self._canonical = [canonical(text) for text in texts]
        tokens = Tokens.extract(self._canonical)
        words = tokens.words()
        numbers = np.arange(len(flat))
        self._whole, self._asked = Whole(tokens.whole(), numbers), Whole(_asked(tokens, self._canonical), numbers)
        self._worded = Whole(*_worded(tokens, numbers))
        parts = [
            (core, number) for number in numbers.tolist() for core in cores(texts[number], self._canonical[number], n)
        ]
        core_hashes = Tokens.extract([core for core, _ in parts]).whole()
        self._cores = Whole(core_hashes, np.array([number for _, number in parts], dtype=np.int64))
        self._expressions = {found: i for i in reversed(numbers) if (found := expression(texts[i])) is not None}
        short = np.flatnonzero(words.n_tokens_Q < n)
        self._endings = (Endings(tokens, short, _FEW, _MORE), Endings(tokens, short, _MORE))
        self._phrases = Phrases(Grams.extract(words, n), [name for name, *_ in flat], threshold)

    def __bool__(self) -> bool:
        return bool(self.named)

    def match(self, texts: Sequence[str]) -> list[Match | None]:
        """Return the known question that each text leaks; None for a text that leaks none."""
        return [match if match and match.kind in LEAKS else None for match in self.compare(texts)]

    def compare(self, texts: Sequence[str]) -> list[Match | None]:
        """Return the best match of each text, of any class; None for a text without a match."""
        matches: list[Match | None] = [None] * len(texts)
        if not self or not texts:
            return matches
        canonical_Q = [canonical(text) for text in texts]
        tokens = Tokens.extract(canonical_Q)
        every_Q = np.arange(len(texts))

        def note(kind: str, found: Iterable[tuple[int, int]]) -> None:
            for q, number in found:
                matches[q] = Match(number, kind, float(kind != NUMBERS))

        # The last one counts: from the weakest class to the strongest.
        note(NUMBERS, self._worded.find(*_worded(tokens, every_Q)))
        grams_of = functools.cache(lambda q: _grams(canonical_Q[q], self.n))
        for q, number, share, of_longer in self._phrases.overlaps(Grams.extract(tokens.words(), self.n)):
            if self._is_much(share, of_longer, lambda q=q, number=number: self._common_share(grams_of(q), number)):
                matches[q] = Match(number, NGRAMS, share)
        note(CONTAINED, self._cores.find(tokens.whole(), every_Q))
        note(CONTAINED, self._contained(tokens, texts))
        if self._expressions:
            found = ((q, self._expressions.get(expression(text) or "")) for q, text in enumerate(texts))
            note(EQUAL, ((q, number) for q, number in found if number is not None))
        note(EQUAL, self._asked.find(_asked(tokens, canonical_Q), every_Q))
        note(EQUAL, self._whole.find(tokens.whole(), every_Q))
        return matches

    def _is_much(self, share: float, of_longer: float, of_tokens: Callable[[], float]) -> bool:
        """Whether the common n-grams are enough for a match.

        Args:
            share, of_longer: of the n-grams of words of the one that has fewer, and of the one that has more.
            of_tokens: returns the share of the n-grams of all tokens, of the one that has fewer.
        """
        much = (1 + self.threshold) / 2
        if of_longer > much:
            return True
        return (of_longer > self.threshold or share > much) and of_tokens() > self.threshold

    def _common_share(self, grams: set[tuple[str, ...]], number: int) -> float:
        """Return the share of n-grams of all tokens that a text and a known question have in common."""
        known = _grams(self._canonical[number], self.n)
        return len(grams & known) / min(len(grams), len(known))

    def _contained(self, tokens: Tokens, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield (text, known question) where a short question is inside the text."""

        @functools.cache
        def ends_of(q: int) -> Ends:
            return Ends(texts[q])

        for endings in self._endings:
            for q, number in dict.fromkeys(endings.find(tokens)):  # a text may repeat it
                if ends_of(q).follow(self._canonical[number]):
                    yield q, number


def _grams(form: str, n: int) -> set[tuple[str, ...]]:
    """Return the n-grams of all tokens of a canonical text."""
    token_T = form.split()
    return {tuple(token_T[i : i + n]) for i in range(len(token_T) - n + 1)}


def _asked(tokens: Tokens, canonical_Q: Sequence[str]) -> np.ndarray:
    """Return the hash of each question without its words of request."""
    n_Q = np.array([n_requesting(form) for form in canonical_Q], dtype=np.int64)
    return np.where(tokens.n_tokens_Q > 0, tokens.spans(tokens.first_Q[:-1] + n_Q, tokens.first_Q[1:]), np.uint64(0))


def _worded(tokens: Tokens, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hash of the wording of each question that has a number and enough other words; and which they are."""
    counts = np.stack([np.concatenate([[0], np.cumsum(mask)]) for mask in (tokens.is_number_T, tokens.is_word_T)])
    n_numbers_Q, n_words_Q = np.diff(counts[:, tokens.first_Q], axis=1)
    some = np.flatnonzero((n_numbers_Q > 0) & (n_words_Q - n_numbers_Q >= _WORDED))
    return tokens.masked().whole()[some], numbers[some]
