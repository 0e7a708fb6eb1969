"""Response text + gold answer -> correct / wrong / ungradable.

Model output is hostile input: it is compared as text and as exact rationals, never evaluated.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .records import CORRECT, UNGRADABLE, WRONG

MAX_ANSWER_CHARS = 1000  # a longer "answer" is no answer, and int() of 10^5 digits is quadratic
_ANSWER_IS = re.compile(r"(?:final answer|answer)\s*(?:is|:)\s*:?\s*(.+)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,4})?", re.IGNORECASE | re.ASCII)
_LATEX_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{([-+]?\d+)\}\{([-+]?\d+)\}", re.ASCII)
_RATIO = re.compile(r"([-+]?\d+)/([-+]?\d+)", re.ASCII)
_WRAPPERS = ("\\text", "\\mathrm", "\\textbf", "\\mathbf")


def verify(response: str, gold: str) -> int:
    """CORRECT, WRONG, or UNGRADABLE when the gold answer itself is empty."""
    gold_form = normalise(gold)
    if not gold_form:
        return UNGRADABLE
    answer = extract(response)
    if answer is None or len(answer) > MAX_ANSWER_CHARS:
        return WRONG
    answer_form = normalise(answer)
    if answer_form == gold_form:
        return CORRECT
    value, gold_value = number(answer_form), number(gold_form)
    return CORRECT if value is not None and value == gold_value else WRONG


def extract(response: str) -> str | None:
    """The final answer a response states, or None.

    The last brace-matched \\boxed{...}; else what follows the last `####`; else what follows the last "answer is";
    else, for a response of a single line, the line itself (short-answer prompts).
    """
    response = response.rpartition("</think>")[2]
    boxed = _last_boxed(response)
    if boxed is not None:
        return boxed
    if "####" in response:
        return _first_line(response.rpartition("####")[2])
    stated = _ANSWER_IS.findall(response)
    if stated:
        return _first_line(stated[-1]).rstrip(".")
    lines = [line for line in response.splitlines() if line.strip()]
    return lines[0] if len(lines) == 1 else None


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def _last_boxed(text: str) -> str | None:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    depth = 0
    for i in range(text.index("{", start), len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[text.index("{", start) + 1 : i]
    return None


def normalise(answer: str) -> str:
    """A light canonical form for comparison: no $, no thin spaces, no wrappers, no thousands commas, lower case."""
    text = answer.strip()[: MAX_ANSWER_CHARS + 1].strip("$ ").rstrip(".").strip()
    for wrapper in _WRAPPERS:
        if text.startswith(wrapper + "{") and text.endswith("}"):
            text = text[len(wrapper) + 1 : -1]
    for junk in ("\\left", "\\right", "\\!", "\\,", "\\;", "\\ ", "{,}", "$", "\\%", "%"):
        text = text.replace(junk, "" if junk != "{,}" else ",")
    text = "".join(text.split()).lower()
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text, re.ASCII):
        text = text.replace(",", "")
    return text


def number(text: str) -> Fraction | None:
    """The exact value of an integer, decimal, a/b or \\frac{a}{b}; None for anything else."""
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    latex, ratio = _LATEX_FRACTION.fullmatch(text), _RATIO.fullmatch(text)
    if latex:
        sign, top, bottom = latex.groups()
    elif ratio:
        sign, (top, bottom) = "", ratio.groups()
    else:
        return None
    if int(bottom) == 0:
        return None
    return Fraction(int(top), int(bottom)) * (-1 if sign == "-" else 1)
