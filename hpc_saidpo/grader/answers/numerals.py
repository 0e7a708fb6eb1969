"""Numbers in English words, and Roman numerals."""

from __future__ import annotations

import re
from fractions import Fraction

ORDINALS = ["zeroth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
NUMBERS = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty",
)
ROMAN = {roman: str(i) for i, roman in enumerate("i ii iii iv v vi vii viii ix x".split(), 1)}  # noqa: SIM905
_TENS = re.findall(r"\w+", "twenty thirty forty fifty sixty seventy eighty ninety")
_SMALL = {word: i for i, word in enumerate(NUMBERS)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_LARGE = {"hundred": 100, "thousand": 1000, "million": 10**6}
_PARTS = {"half": 2, "quarter": 4} | {word: i for i, word in enumerate(ORDINALS) if i > 2}
_ONLY_LETTERS = re.compile(r"[A-Za-z]+(?:[ -]+[A-Za-z]+){0,8}")


def number_in_words(text: str) -> Fraction | None:
    """The value of `twelve`, `twenty-one`, `one hundred and five`, `three fourths`; None for anything else."""
    if not _ONLY_LETTERS.fullmatch(text):
        return None
    names = re.split(r"[ -]+", text.lower())
    if len(names) > 1 and (part := _PARTS.get(names[-1].removesuffix("s").replace("halve", "half"))):
        top = _cardinal(names[:-1])
        return None if top is None else Fraction(top, part)
    whole = _cardinal(names)
    return None if whole is None else Fraction(whole)


def _cardinal(names: list[str]) -> int | None:
    total = group = 0
    previous = ""
    for name in names:
        if name == "and" and previous in _LARGE:
            continue
        if name in _SMALL:
            if previous and previous not in _LARGE and not (previous in _TENS and _SMALL[name] < 10):
                return None
            group += _SMALL[name]
        elif name == "hundred" and group:
            group *= 100
        elif name in _LARGE and group:
            total, group = total + group * _LARGE[name], 0
        else:
            return None
        previous = name
    return total + group
