"""Exact rational values: answers that need no algebra."""

from __future__ import annotations

import re
from fractions import Fraction

from . import latex
from .extract import MAX_ANSWER_CHARS

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,4})?", re.IGNORECASE | re.ASCII)
_SCIENTIFIC = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)?)\*?10\^(?:\{([-+]?\d{1,4})\}|(\d))", re.ASCII)
_FRACTION = re.compile(r"([-+]?)(\d*)\\frac(?:\{([-+]?\d+)\}\{([-+]?\d+)\}|(\d)(\d)|(\d)\{(\d+)\})", re.ASCII)
_RATIO = re.compile(r"([-+]?)(?:\(?([-+]?\d+\.?)\)?)/\(?([-+]?\d+)\)?", re.ASCII)
_SIGNIFICANT = 6  # digits of a decimal that may be a rounded exact value
_DIGITS_APART = re.compile(r"(?<=\d) +(?=\d)", re.ASCII)
_GROUPED = re.compile(r"(?<![\d.,] )(?<![\d.,])\d{1,3}(?: \d{3})+(?! ?\d)", re.ASCII)  # 12 345 678
_NO_NUMBER = re.compile(r"\s*[-+]?(?:inf|Infinity|nan|NaN|NAN)\s*")


def is_no_number(text: str) -> bool:
    """Whether a text is what Python or JSON writes for a float that is no number: nan, inf, Infinity."""
    return bool(_NO_NUMBER.fullmatch(text))


def number(text: str) -> Fraction | None:
    """The exact value of an integer, decimal, a/b, \\frac{a}{b}, mixed number or a*10^n without spaces; else None."""
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    if match := _FRACTION.fullmatch(text):
        sign, whole, *parts = match.groups()
        top, bottom = (int(part) for part in parts if part is not None)
        if bottom == 0 or (whole and not 0 < top < bottom):
            return None
        return (int(whole or 0) + Fraction(top, bottom)) * (-1 if sign == "-" else 1)
    if match := _RATIO.fullmatch(text):
        sign, top, bottom = match.groups()
        if int(bottom) == 0:
            return None
        return Fraction(int(top.rstrip(".")), int(bottom)) * (-1 if sign == "-" else 1)
    if match := _SCIENTIFIC.fullmatch(text):
        mantissa = match.group(1)
        power = Fraction(10) ** int(match.group(2) or match.group(3))
        return (Fraction(f"{mantissa}1") if mantissa in ("", "+", "-") else Fraction(mantissa)) * power
    return None


def without_blanks(plain: str) -> str:
    """A plain answer without blanks, except between digits: 1 2 is not 12, but 1 234 is 1234."""
    if " " not in plain:
        return plain
    parts = _DIGITS_APART.split(_GROUPED.sub(lambda m: m.group().replace(" ", ""), plain))
    return " ".join("".join(part.split()) for part in parts)


def joined(plain: str) -> str:
    """A plain answer without blanks, and without thousands separators if it is a number."""
    text = without_blanks(plain)
    return text.replace(",", "") if latex.THOUSANDS.fullmatch(text.lstrip("+-").partition(".")[0]) else text


def normalise(answer: str) -> str:
    """A form that counts equal answers together: plain LaTeX without blanks, exact values as fractions, lower case."""
    plain = latex.clean(answer[: MAX_ANSWER_CHARS + 1])
    value = number(joined(plain))
    if value is None:
        return without_blanks(plain).lower()
    return f"={value.numerator:x}/{value.denominator:x}"  # in decimals Python refuses more than 4,300 digits


def same_number(gold: Fraction, answer: Fraction, gold_text: str, answer_text: str) -> bool:
    """Whether two exact values are one number.

    They are equal, or one of them is a decimal of at least six significant digits and the rounded value of the other.
    """
    if gold == answer:
        return True
    rounded = [_is_long_decimal(gold_text), _is_long_decimal(answer_text)]
    return (
        any(rounded)
        and not all(_is_decimal(t) for t in (gold_text, answer_text))
        and abs(gold - answer) <= abs(gold) / 10**6
    )


def _is_decimal(text: str) -> bool:
    return "." in text or text.lstrip("+-").isdigit()


def _is_long_decimal(text: str) -> bool:
    digits = text.lstrip("+-").replace(".", "").lstrip("0")
    return "." in text and digits.isdigit() and len(digits) >= _SIGNIFICANT
