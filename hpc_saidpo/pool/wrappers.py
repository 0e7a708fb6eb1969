"""A question with other sentences around it: "Problem: ... Give your answer as a fraction." Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from .canonical import canonical
from .spellings import REQUESTS

_CORE_TOKENS = 4  # of a core, at least
_NOTATION, _AROUND = 10, 300  # characters of a text for one of its canonical form, and for what stands before
_GLANCE = 80  # characters before a place, for its last word
_LONGEST_KNOWN, _PLACES = 512, 2000  # characters of a known question; places of a text that are compared with it
_SENTENCES, _WORDS = 6, 40  # of a question whose cores are considered, at most
_SENTENCE_END = re.compile(r"[.?!:;][\"'”’)*\]$\\]*(?=\s|$)|\n(?=[^\S\n]*(?:\n|[A-Z#<\[(*\"']))")
# A question whose full stop is missing may also end before a capitalised word: "Compute 2 + 3 Answer with a number",
# or before instructions in parentheses.
_BREAK = re.compile(
    _SENTENCE_END.pattern + r"|\s(?=[\[(<*\"'#_]*[A-Z][a-z]"
    r"|\((?:answer|enter|express|give|hint|note|please|round|show|source|use|write|your)\b)|$"
)

# Words for the same request at the beginning of a canonical text.
_REQUEST = re.compile(
    rf"(?:please )?(?:{'|'.join(sorted(REQUESTS))}|what (?:is|are))(?: (?:the|exact|numerical|value|values|of))* "
)
_LEAST_ASKED = 3  # tokens after a request, at least


def n_requesting(form: str) -> int:
    """Return the number of tokens at the beginning that only request an answer, as 5 in "what is the value of 2 + 3".

    Args:
        form: canonical form of a question. Its request does not count if hardly anything follows.
    """
    request = _REQUEST.match(form)
    return request[0].count(" ") if request and form.count(" ", request.end()) + 1 >= _LEAST_ASKED else 0


class Ends:
    """The places of a text where a sentence ends, to search for known questions before them.

    The text before a place is brought into canonical form once for all known questions, and only where it ends with
    the last word or number of one.
    """

    def __init__(self, text: str):
        self._text = text
        self._after: dict[str, list[int]] = {}  # last word or number -> places after it
        for end in {found.end() for found in _BREAK.finditer(text)}:
            self._after.setdefault(_last_word(canonical(text[max(0, end - _GLANCE) : end])), []).append(end)
        self._before = functools.cache(self._tokens_before)

    def follow(self, known: str) -> bool:
        """Whether the text asks a known question, with other sentences around it.

        The known question has to end where a sentence of the text ends: "What is 2 + 3 modulo 4?" does not ask "What
        is 2 + 3?". A formula must not continue to its left: "1 - 2 + 3" does not contain 2 + 3.

        Args:
            known: canonical form of the question. One of more than _LONGEST_KNOWN characters is not searched for.
        """
        known_T = known.split()
        places = self._after.get(_last_word(known), []) if len(known) <= _LONGEST_KNOWN else []
        size = 2 ** max(5, (len(known) - 1).bit_length())  # few sizes: the tokens before a place are kept for each
        for end in places[:_PLACES]:
            token_T = self._before(end, size)
            if token_T[-len(known_T) :] == known_T:
                before = token_T[-len(known_T) - 1 : -len(known_T)]
                if not (before and _is_formula(before[0]) and _is_formula(known_T[0])):
                    return True
        return False

    def _tokens_before(self, end: int, size: int) -> list[str]:
        """Return the canonical tokens before a place, enough for a canonical form of `size` characters."""
        return canonical(self._text[max(0, end - _NOTATION * size - _AROUND) : end]).split()


def _last_word(form: str) -> str:
    """Return the last word or number of a canonical text; "" if it has none."""
    return next((token for token in reversed(form.split()) if token[0].isalnum()), "")


def _is_formula(token: str) -> bool:
    return len(token) < 2 or not token.isalpha()


def cores(text: str, form: str, n_words: int) -> Iterator[str]:
    """Yield the canonical forms of short parts of a question that may be the question without a wrapper.

    They are whole sentences with all numbers of the question, as in "What is 2 + 3? Answer with a number."

    Args:
        form: canonical form of the whole question.
        n_words: number of words that a part does not reach.
    """
    n_numbers, n_all_words, _ = _count(form)
    if not n_numbers or n_all_words > _WORDS:
        return
    ends = [0, *(found.end() for found in _SENTENCE_END.finditer(text)), len(text)]
    ends = [end for end, after in zip(ends, [*ends[1:], -1], strict=True) if end != after]
    if not 2 < len(ends) <= _SENTENCES + 1:
        return
    for first, start in enumerate(ends[:-1]):
        for end in ends[first + 1 :]:
            if (start, end) != (0, len(text)):
                core = canonical(text[start:end])
                numbers, words, tokens = _count(core)
                if 0 < numbers == n_numbers and words < n_words and tokens >= _CORE_TOKENS:
                    yield core


def _count(form: str) -> tuple[int, int, int]:
    """Return the numbers, the words (numbers are some) and the tokens of a canonical text."""
    firsts = [token[0] for token in form.split()]
    return sum(map(str.isdigit, firsts)), sum(map(str.isalnum, firsts)), len(firsts)
