"""Gold answers: their plain form, and their defects."""

from __future__ import annotations

import re

from . import latex, words
from .exact import is_no_number
from .extract import MAX_ANSWER_CHARS

MAX_GOLD_CHARS = 120
_SOMETHING = re.compile(r"[0-9A-Za-z]")
_PLAIN = re.compile(r"[-+]?[\d.,/]{1,40}")
_HARMLESS = {
    "and",
    "or",
    "for",
    "all",
    "if",
    "is",
    "in",
    "the",
    "of",
    "no",
    "solution",
    "real",
    "numbers",
    "any",
    "with",
}


def cleaned(gold: str) -> str:
    """A gold answer as mathematics: no dollar signs, one space for any run of blanks, no final period."""
    return latex.clean(" ".join(gold.split()))


def defects(gold: str) -> list[str]:
    """Defects of a doubtful gold answer.

    They are "empty", "not a number", "long", "prose", "several formulas", "newline" and "several boxes".
    """
    if not _SOMETHING.search(gold) and not cleaned(gold):
        return ["empty"]
    if is_no_number(gold):
        return ["not a number"]
    if _PLAIN.fullmatch(gold):
        return []
    faults = []
    if len(gold) > MAX_GOLD_CHARS:
        faults.append("long")
    outside = re.sub(r"\$[^$]*\$|\\text\{[^{}]*\}|\\[a-zA-Z]+", " ", gold)
    prose = [w for w in re.findall(r"[A-Za-z]{2,}", outside) if w.lower() not in _HARMLESS]
    if len(prose) >= 3 or len(" ".join(re.findall(r"\\text\{([^{}]*)\}", gold)).split()) > 8:
        faults.append("prose")
    if gold.count("$") > 2 and len(re.findall(r"\$[^$]+\$", gold)) > 1:
        faults.append("several formulas")
    if "\n" in gold.strip():
        faults.append("newline")
    if "\\boxed" in gold and len(set(re.findall(r"\\boxed\{([^{}]*)\}", gold))) > 1:
        faults.append("several boxes")
    return faults


def is_prose(gold: str) -> bool:
    """Whether a gold answer is a text, so that only the same text is correct."""
    return len(gold) > MAX_ANSWER_CHARS or ("prose" in defects(gold) and words.words(latex.clean(gold)) is None)
