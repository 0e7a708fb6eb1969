"""A question with other sentences around it: "Problem: ... Give your answer as a fraction." Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .canonical import canonical
from .spellings import REQUESTS

_CORE_TOKENS = 4  # of a core, at least
_NOTATION, _AROUND = 10, 300  # characters of a text for one of its canonical form, and for what stands before
_SENTENCES, _WORDS = 6, 40  # of a question whose cores are considered, at most
_SENTENCE_END = re.compile(r"[.?!:;][\"'”’)*\]$\\]*(?=\s|$)|\n(?=\s*(?:\n|[A-Z#<\[(*\"']))")
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
    """Return how many tokens at the beginning only request an answer: 5 of "what is the value of 2 + 3".

    Args:
        form: canonical form of a question. Its request does not count if hardly anything follows.
    """
    request = _REQUEST.match(form)
    return request[0].count(" ") if request and form.count(" ", request.end()) + 1 >= _LEAST_ASKED else 0


def is_wrapped(known: str, text: str) -> bool:
    """Whether a text asks a known question, with other sentences around it.

    The known question has to end where a sentence of the text ends: "What is 2 + 3 modulo 4?" does not ask "What is
    2 + 3?". A formula must not continue to its left: "1 - 2 + 3" does not contain 2 + 3.

    Args:
        known: canonical form of the question.
        text: the text as it is.
    """
    known_T = known.split()
    reach = _NOTATION * len(known) + _AROUND
    for end in {found.end() for found in _BREAK.finditer(text)}:
        token_T = canonical(text[max(0, end - reach) : end]).split()
        if token_T[-len(known_T) :] == known_T:
            before = token_T[-len(known_T) - 1 : -len(known_T)]
            if not (before and _is_formula(before[0]) and _is_formula(known_T[0])):
                return True
    return False


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
