"""Verdicts on answers: cheap ones in place, and thorough ones for a process that may be killed."""

from __future__ import annotations

import re
from fractions import Fraction

from ...records import CORRECT, UNGRADABLE, WRONG, Judgement
from . import compare, latex, units, words
from .exact import is_no_number, joined, number, same_number, without_blanks
from .extract import MAX_ANSWER_CHARS
from .leaves import Library

_PLAIN_NUMBER = re.compile(r"-?\d{1,18}", re.ASCII)
MAX_DEPTH = 40  # of brackets in an answer
_HEX = re.compile(r"0x[0-9a-f]", re.IGNORECASE)


def decide(gold: str, answer: str | None) -> Judgement | None:
    """A verdict from text and exact values alone; None if it takes more mathematics.

    Args:
        answer: the answer of the response (`extract`); None if it states none.
    """
    if _PLAIN_NUMBER.fullmatch(gold) and answer and _PLAIN_NUMBER.fullmatch(answer):  # the most frequent case
        return Judgement(CORRECT if int(gold) == int(answer) else WRONG, "integers")
    if len(gold) > MAX_ANSWER_CHARS:
        return _by_text(gold, answer)
    plain_gold = latex.clean(" ".join(gold.split()))
    if not plain_gold or is_no_number(gold):
        return Judgement(UNGRADABLE, "the gold answer is not a number" if plain_gold else "the gold answer is empty")
    if answer is None:
        return Judgement(WRONG, "no answer stated")
    if len(answer) > MAX_ANSWER_CHARS:
        return Judgement(WRONG, f"longer than {MAX_ANSWER_CHARS} characters")
    plain = latex.clean(" ".join(answer.split()))
    if not plain:
        return Judgement(WRONG, "empty answer")
    if without_blanks(plain) == without_blanks(plain_gold):
        return Judgement(CORRECT, "the same text")
    if _HEX.search(plain) and not _HEX.search(plain_gold):
        return Judgement(WRONG, "hexadecimal")
    return _by_value(plain_gold, plain) or _by_kind(plain_gold, plain)


def _by_text(gold: str, answer: str | None) -> Judgement:
    """The verdict for a gold answer that is too long for mathematics: nothing but the same text is correct."""
    if answer is None:
        return Judgement(WRONG, "no answer stated")
    if "".join(answer.split()) == "".join(gold.split()):
        return Judgement(CORRECT, "the same text")
    return Judgement(UNGRADABLE, f"the gold answer is longer than {MAX_ANSWER_CHARS} characters: a text")


def _by_value(gold: str, answer: str) -> Judgement | None:
    texts = joined(gold), joined(answer)
    gold_value, value = number(texts[0]), number(texts[1])
    if gold_value is None or value is None:
        return None
    return Judgement(CORRECT if same_number(gold_value, value, *texts) else WRONG, "exact values")


def _by_kind(gold: str, answer: str) -> Judgement | None:
    """Letters, bases, times and words are never mathematics."""
    if len(gold) <= 12 and (letter := words.choice(gold)) and letter.upper() in "ABCDEFGHIJK":
        return _by_letter(gold, letter, answer)
    base = words.in_base(gold)
    if base:
        other = words.in_base(answer) or (answer.replace(" ", "").upper().lstrip("0"), base[1])
        if words.in_base(answer) or answer.replace(" ", "").isdigit():
            return Judgement(CORRECT if other == base else WRONG, "digits and base")
    gold_time, time = words.clock(gold), words.clock(answer)
    if gold_time is not None and time is not None:
        return Judgement(CORRECT if words.same_time(gold_time, time) else WRONG, "time of day")
    gold_letters, answer_letters = words.letters(gold), words.letters(answer)
    if gold_letters and answer_letters and (equal := words.same_letters(gold_letters, answer_letters)) is not None:
        return Judgement(CORRECT if equal else WRONG, "letters")
    return _by_words(gold, answer)


def _by_letter(gold: str, letter: str, answer: str) -> Judgement | None:
    other = words.choice(answer) or words.labelled_choice(answer)
    if other:
        return Judgement(CORRECT if other.upper() == letter.upper() else WRONG, "choice letter")
    if "\\text" in gold or "(" in gold or letter in "ABCD":
        return Judgement(WRONG, "choice letter")
    return None


def _by_words(gold: str, answer: str) -> Judgement | None:
    values = words.number_in_words(gold), words.number_in_words(answer)
    if values != (None, None):
        equal = _number(gold, values[0]) == _number(answer, values[1]) != None  # noqa: E711
        return Judgement(CORRECT if equal else WRONG, "number in words")
    gold_words, answer_words = words.words(gold), words.words(answer)
    if gold_words is not None and units.split(gold)[1] and number(joined(units.split(gold)[0])) is not None:
        gold_words = None
    if gold_words is not None and answer_words is not None:
        return Judgement(CORRECT if gold_words == answer_words else WRONG, "words")
    return None


def _number(plain: str, in_words: Fraction | None) -> Fraction | None:
    return number(joined(units.split(plain)[0])) if in_words is None else in_words


def thorough(gold: str, answer: str, library: Library | None = None) -> Judgement:
    """A verdict by outer form and by values.

    Hostile input may take long: call it in a process that may be killed.

    Args:
        library: compares expressions that this grammar cannot compare (`compare.same`).
    """
    if max(len(gold), len(answer)) > MAX_ANSWER_CHARS:
        return _by_text(gold, answer)
    plain_gold, plain = latex.clean(" ".join(gold.split())), latex.clean(" ".join(answer.split()))
    if latex.depth(plain) > max(MAX_DEPTH, latex.depth(plain_gold)):
        return Judgement(WRONG, f"brackets nested more than {MAX_DEPTH} deep")
    equal = compare.same(plain_gold, plain, library)
    if equal:
        return Judgement(CORRECT, "form and values")
    if equal is None:
        return Judgement(UNGRADABLE, "the gold answer, or whether this is it, is beyond every checker")
    return Judgement(WRONG, "form and values")


def alone(gold: str, library: Library | None = None) -> Judgement:
    """CORRECT if a gold answer can be compared with others, else UNGRADABLE. See `thorough`."""
    if compare.is_gradable(latex.clean(" ".join(gold.split())), library):
        return Judgement(CORRECT, "the gold answer has values")
    return Judgement(UNGRADABLE, "the gold answer is beyond every checker")
