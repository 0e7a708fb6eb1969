"""Answers that are words, a letter, a number in some base, or a time of day."""

from __future__ import annotations

import re
from fractions import Fraction

from . import numerals
from .numerals import NUMBERS, ORDINALS, ROMAN

_ARTICLES = {
    "a",
    "an",
    "the",
    "is",
    "are",
    "it",
    "its",
    "be",
    "of",
    "to",
    "that",
    "this",
    "there",
    "answer",
    "so",
    "has",
    "have",
}
_SAME_WORD = {
    "solutions": "solution", "roots": "solution", "root": "solution", "real": "", "such": "", "none": "no solution",
    "any": "", "exist": "", "exists": "", "possible": "", "value": "", "values": "", "inconsistent": "no solution",
    "converge": "converges", "convergent": "converges", "converging": "converges", "diverge": "diverges",
    "divergent": "diverges", "diverging": "diverges", "dne": "undefined", "infinite": "infinity",
    "infinitely": "infinity", "condition": "", "point": "", "points": "",
    "integers": "integer", "numbers": "number",
    "limit": "", "series": "", "sequence": "", "integral": "",
}  # fmt: skip
_SHORT_WORDS = {
    "no", "yes", "odd", "even", "true", "none", "not", "all", "both", "on", "dne", "two", "one", "six", "ten", "up",
    "down", "left", "never", "north", "south", "east", "west", "red", "blue", "tie", "neither", "always",
}  # fmt: skip
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_CHOICE = re.compile(r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s*:?\s*)?\(?\s*([A-Za-z])\s*\)?[.:]?")
_LABEL = re.compile(r"\(?([A-Z])\s*[).:]\s*(?=\S)")
_OTHER_LABEL = re.compile(
    r"(?<![\w(\\])\(?([A-K])\s*[).:]|(?:\band\b|\bor\b|[,;&/])\s*\(?([A-K])\b(?!\s*[=(])|^([A-K])$"
)
_LETTERS = re.compile(r"(?:[A-Z]|\([A-Z]{1,4}\)|and|or|only|[\s,;&.])+")
_LETTER = re.compile(r"[A-Z]+")
_ONE_LETTER = re.compile(r"[A-Z]|[IVX]{1,4}")
_LETTERS_AT_ONCE = re.compile(r"A?B?C?D?E?F?G?H?")  # ABD
_BASE = re.compile(
    r"([0-9A-Za-z][0-9A-Za-z ]*)_\{?\s*(?:\\text\{)?(\d{1,2}|two|three|eight|ten|sixteen)[}\s]*", re.ASCII
)
_BASE_WORDS = {"two": "2", "three": "3", "eight": "8", "ten": "10", "sixteen": "16"}
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?(?::(\d\d))?\s*(?:([ap])\.?\s*m\.?)?(?:o'?clock)?", re.IGNORECASE | re.ASCII)
_DIGITS_AND_COLON = re.compile(r"\d{1,2}:\d\d", re.ASCII)


def _plain_text(plain: str) -> str:
    r"""The answer with the content of each \text{...} in its place."""
    return _TEXT.sub(r" \1 ", plain) if "\\text" in plain else plain


def choice(plain: str) -> str | None:
    """The letter of a multiple-choice answer: A, (A), A., \\text{(A)}; None for anything else."""
    match = _CHOICE.fullmatch(_TEXT.sub(r"\1", plain).strip())
    return match.group(1) if match else None


def labelled_choice(plain: str) -> str | None:
    """The letter of `(C) 14 cm` and `C: 14 cm`; None if there are more letters, as in `(A)(B)`."""
    text = _TEXT.sub(r"\1", plain).strip()
    match = _LABEL.match(text)
    if not match:
        return None
    others = {letter for found in _OTHER_LABEL.findall(text[match.end() :]) for letter in found if letter}
    return match.group(1) if others <= {match.group(1)} else None


def letters(plain: str) -> tuple[str, ...] | None:
    """The letters or Roman numerals of `A and C` or `I, II only`, sorted; None for anything else.

    Letters without anything between them, as AC, are one item.
    """
    text = _plain_text(plain).strip()
    if not _LETTERS.fullmatch(text) or re.search(r"(?<![A-Za-z])(?:AND|OR|ONLY)(?![A-Za-z])", text):
        return None
    return tuple(sorted(_LETTER.findall(text)))


def same_letters(gold: tuple[str, ...], answer: tuple[str, ...]) -> bool | None:
    """Whether two results of `letters` agree; None if they need not be letters of choices, as AB and CD."""
    if len(gold) == 1 < len(answer) and len(gold[0]) > 1 and _LETTERS_AT_ONCE.fullmatch(gold[0]):
        gold = tuple(gold[0])
    if len(answer) == 1 < len(gold) and len(answer[0]) > 1 and _LETTERS_AT_ONCE.fullmatch(answer[0]):
        answer = tuple(answer[0])
    are_single = all(_ONE_LETTER.fullmatch(item) for item in (*gold, *answer))
    are_roman = all(item.lower() in ROMAN for item in (*gold, *answer))
    if not are_single or (len(gold) == len(answer) == 1 and not are_roman):
        return None
    return set(gold) == set(answer)


def in_base(plain: str) -> tuple[str, str] | None:
    """(digits, base) of 52_8 and 52_{8}; None for anything else."""
    match = _BASE.fullmatch(plain)
    if not match or not re.search(r"\d", match.group(1)):
        return None
    digits, base = match.groups()
    if re.match(r"[A-Za-z]", digits) and not re.fullmatch(r"[0-9A-F ]+", digits):
        return None
    return digits.replace(" ", "").upper().lstrip("0"), _BASE_WORDS.get(base, base)


def clock(plain: str) -> tuple[int, int, int, str] | None:
    """(hour, minute, second, "a", "p" or "") of a time of day; None for anything else."""
    text = " ".join(_TEXT.sub(r" \1 ", plain).split())
    match = _CLOCK.fullmatch(text)
    if not match or not (match.group(2) or match.group(4)):
        return None
    hour, minute, second, half = match.groups()
    if int(hour) > 24 or int(minute or 0) > 59:
        return None
    return int(hour), int(minute or 0), int(second or 0), (half or "").lower()


def same_time(gold: tuple, answer: tuple) -> bool:
    """Whether two times agree; "am" or "pm" may be missing in one of them."""
    return gold[:3] == answer[:3] and (gold[3] == answer[3] or not gold[3] or not answer[3])


def words(plain: str) -> tuple[str, ...] | None:
    """The words of an answer, in one form; None if it is not in words.

    Content of \\text{...} is words; other content only if it reads like words.
    """
    if plain in ("\\emptyset", "\\{ \\}", "\\{\\}", "\\oslash"):
        return ("no", "solution")
    if plain == "\\infty":
        return ("infinity",)
    if not is_words(plain):
        return None
    text = _TEXT.sub(r" \1 ", plain).lower()
    text = re.sub(r"\\(?:mathbb|operatorname)|[{}$\\]", " ", text).replace("n't", " not")
    text = re.sub(r"[^\w+<>=/^.%-]+", " ", text)
    result: list[str] = []
    for word in text.split():
        word = word.strip(".-_") or word
        word = _SAME_WORD.get(word, word)
        if word in _ARTICLES or not word:
            continue
        result += word.split()
    result = [str(ORDINALS.index(w)) if w in ORDINALS else w for w in result]
    result = [str(NUMBERS.index(w)) if w in NUMBERS else w for w in result]
    if result[:2] == ["infinity", "many"]:
        result = [word for word in result if word != "solution"]
    if "quadrant" in result:
        result = sorted(re.sub(r"(st|nd|rd|th)$", "", ROMAN.get(w, w)) for w in result)
    if "undefined" in result or result[:2] == ["not", "defined"] or result == ["does", "not"]:
        return ("undefined",)
    return tuple(result)


def is_words(plain: str) -> bool:
    """Whether an answer is made of words rather than of symbols."""
    inside = " ".join(_TEXT.findall(plain))
    outside = _TEXT.sub(" ", plain)
    if re.search(r"[A-Za-z]{2,}", inside):
        return (
            not re.search(r"[\\^_=<>+*/]|\d", outside)
            and len(re.findall(r"[A-Za-z]", outside)) <= 3 * len(inside.split()) + 3
        )
    if re.search(r"[\\^_=<>+*/|]", outside):
        return False
    raw = re.findall(r"[A-Za-z][A-Za-z'-]*", outside)
    longest = max(map(len, raw), default=0)
    return (
        bool(raw)
        and (longest >= 4 or any(w.lower() in _SHORT_WORDS for w in raw))
        and not re.match(r"\s*[-+]?[\d.]", outside)
    )


def number_in_words(plain: str) -> Fraction | None:
    """The value of `twelve` and `three fourths`; None for anything else."""
    return numerals.number_in_words(_plain_text(plain).strip())
