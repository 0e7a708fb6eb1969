"""Unicode form NFKC, in a time that does not grow with the square of the text's length. Pure."""

from __future__ import annotations

import re
import unicodedata

# The standard library sorts the combining marks of one character by insertion. No language has more than 30 of them
# (Unicode Standard Annex #15, stream-safe text).
MOST_MARKS = 30
_NOT_ASCII = re.compile(rf"[^\x00-\x7f]{{{MOST_MARKS + 1},}}")
_DECOMPOSED_TO_MARKS = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")


def nfkc(text: str) -> str:
    """Return a text in form NFKC."""
    return text if text.isascii() else unicodedata.normalize("NFKC", _NOT_ASCII.sub(_in_order, text))


def _in_order(found: re.Match) -> str:
    """Sort the marks of each character that has many, as the normalisation would: it then has nothing to sort."""
    result: list[str] = []
    marks: list[str] = []
    for character in (*found[0], ""):
        if character and (unicodedata.combining(character) or character in _DECOMPOSED_TO_MARKS):
            marks.append(character)
            continue
        if len(marks) > MOST_MARKS:
            marks = sorted("".join(unicodedata.normalize("NFKD", mark) for mark in marks), key=unicodedata.combining)
        result += marks
        result.append(character)
        marks = []
    return "".join(result)
