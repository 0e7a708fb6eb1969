"""Exact rational values: the answers that need no algebra."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,4})?", re.IGNORECASE | re.ASCII)
_SCIENTIFIC = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)?)\*?10\^(?:\{([-+]?\d{1,4})\}|(\d))", re.ASCII)
_FRACTION = re.compile(r"([-+]?)(\d*)\\frac(?:\{([-+]?\d+)\}\{([-+]?\d+)\}|(\d)(\d)|(\d)\{(\d+)\})", re.ASCII)
_RATIO = re.compile(r"([-+]?)(?:\(?([-+]?\d+\.?)\)?)/\(?([-+]?\d+)\)?", re.ASCII)
_SIGNIFICANT = 6  # digits that a decimal must have to stand for an exact value


def number(text: str) -> Fraction | None:
    """The exact value of an integer, decimal, a/b, \\frac{a}{b}, mixed number or a*10^n without spaces; else None."""
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    if found := _FRACTION.fullmatch(text):
        sign, whole, *parts = found.groups()
        top, bottom = (int(part) for part in parts if part is not None)
        if bottom == 0 or (whole and not 0 < top < bottom):
            return None
        return (int(whole or 0) + Fraction(top, bottom)) * (-1 if sign == "-" else 1)
    if found := _RATIO.fullmatch(text):
        sign, top, bottom = found.groups()
        if int(bottom) == 0:
            return None
        return Fraction(int(top.rstrip(".")), int(bottom)) * (-1 if sign == "-" else 1)
    if found := _SCIENTIFIC.fullmatch(text):
        mantissa = found.group(1)
        power = Fraction(10) ** int(found.group(2) or found.group(3))
        return (Fraction(f"{mantissa}1") if mantissa in ("", "+", "-") else Fraction(mantissa)) * power
    return None


def same_number(gold: Fraction, answer: Fraction, gold_text: str, answer_text: str) -> bool:
    """Whether two exact values are one number.

    Equal, or one of them a decimal of at least six significant digits that is the other one, rounded.
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
