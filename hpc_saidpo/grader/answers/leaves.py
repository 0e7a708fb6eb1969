"""Expressions, the leaves of an answer: compared as words, as values, and without their units."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar

from . import latex, units, values, words
from .exact import number, same_number
from .grammar import Unreadable, nodes, parse, renamed, symbols
from .shape import Expression, Group, Ratio

_DERIVATIVE = re.compile(r"\\frac\{d\w?\}\{d\w\}|d\w/d\w")
_LOGARITHM = re.compile(r"\\log(?!\s*_)(?![a-z])")
# Names for any integer, as in pi/2 + k pi, and for any constant: it does not matter which one is taken.
_INTEGERS = frozenset("kmn")
_CONSTANTS = frozenset(("C", "c", "C_1", "C_{1}", "c_1", "c_{1}", "C_0", "C_{0}"))
_LIBRARY = re.compile(
    r"\\(?:sum|prod|i*int|oint|lim|max|min|gcd|lcm|det|sup|inf)(?![a-z])"
)  # what is asked of `settle`
# Two expressions that the grammar cannot settle -> the same, not the same, or None when the gold one cannot be read.
Settle = Callable[[str, str], bool | None]
settler: ContextVar[Settle] = ContextVar("settle", default=lambda gold, answer: None)


def expressions(node):
    """Every expression of a node, from left to right."""
    if isinstance(node, Expression):
        yield node
        return
    for child in getattr(node, "items", ()) or getattr(node, "parts", ()) or getattr(node, "sides", ()):
        yield from expressions(child)
    for row in getattr(node, "rows", ()):
        for cell in row:
            yield from expressions(cell)


def is_text(node) -> bool:
    """Whether an expression is made of words."""
    return isinstance(node, Expression) and words.is_words(" ".join(node.tokens))


def is_name(node) -> bool:
    """x, f(x), S_{ABC}, |AB|, \\text{area}: what an answer may be called."""
    if isinstance(node, Group):
        return all(is_name(item) for item in node.items)
    if isinstance(node, Ratio):
        return all(is_name(part) for part in node.parts)
    if not isinstance(node, Expression) or not node.tokens:
        return False
    if is_text(node) or node.tokens[0].startswith("\\text"):
        return True
    tree = tree_of(node.tokens)
    if tree is None:
        return False
    if tree[0] == "^" and tree[2] == ("-", ("n", "1")):  # A^{-1}, f^{-1}(x)
        tree = tree[1]
    if tree[0] == "abs":
        tree = tree[1]
    if tree[0] == "/" and _DERIVATIVE.fullmatch("".join(node.tokens)):
        return True
    if tree[0] == "symbol" or tree[0] == "call":
        return True
    if tree[0] == "*":  # AB, C(h), P(A), f^{-1}(x)
        letters = "".join(node.tokens)
        return bool(
            re.fullmatch(
                r"[A-Z]{2,4}'*|\|?[A-Z]{2}\|?|\\?[A-Za-z]+(?:_\{?\w+\}?|\^\{?-1\}?|')*\((?:[A-Za-z0-9]|,|\\[a-z]+)+\)",
                letters,
            )
        )
    return False


def plain_name(node) -> str:
    """The name of a value, without braces and blanks."""
    return "".join(t for e in expressions(node) for t in e.tokens if t not in "{}() ")


def all_of(verdicts) -> bool | None:
    """True when all are, False when one is not, else None."""
    unsure = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unsure |= verdict is None
    return None if unsure else True


def any_of(verdicts) -> bool | None:
    """True when one is, None when one cannot be told, else False."""
    unsure = False
    for verdict in verdicts:
        if verdict:
            return True
        unsure |= verdict is None
    return None if unsure else False


def matched(gold: Sequence, answer: Sequence, same: Callable[[object, object], bool | None]) -> bool | None:
    """Whether every item has a partner of its own on the other side, in any order; None when that cannot be told."""
    if len(gold) != len(answer):
        return False
    left, unsure = list(answer), False
    for item in gold:
        verdicts = [same(item, other) for other in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


@functools.lru_cache(maxsize=1024)
def tree_of(tokens: tuple[str, ...]):
    """The tree of an expression; None when the grammar does not know it."""
    try:
        return parse(list(tokens))
    except Unreadable:
        return None


def same_expressions(gold: tuple, answer: tuple) -> bool | None:
    """Whether two expressions mean the same; None when that cannot be told."""
    if gold == answer:
        return True
    gold_text, answer_text = " ".join(gold), " ".join(answer)
    if words.is_words(gold_text) or words.is_words(answer_text):
        return _same_words(gold_text, answer_text)
    gold_text, answer_text = _glued(gold), _glued(answer)
    verdict = _same_values(gold_text, answer_text)
    if verdict:
        return True
    return _same_without_units(gold_text, answer_text, verdict)


def _glued(tokens: Sequence[str]) -> str:
    """Tokens as a string again: letters side by side are a word, and may be a unit."""
    text = ""
    for before, token in itertools.pairwise(("", *tokens)):
        apart = (token[0].isalpha() and before[1:].isalpha()) or (token[0].isdigit() and before[-1:].isdigit())
        text += " " + token if apart else token
    return text


def _same_words(gold: str, answer: str) -> bool:
    spelled = words.words(gold), words.words(answer)
    if None not in spelled:
        return spelled[0] == spelled[1]
    number_word = words.number_in_words(gold) or words.number_in_words(answer)
    other = answer if words.number_in_words(gold) else gold
    return number_word is not None and number_word == other.strip()


def _same_without_units(gold: str, answer: str, verdict) -> bool | None:
    (gold_value, gold_unit), (value, unit) = units.split(gold), units.split(answer)
    if not gold_unit and not unit:
        return verdict
    if units.conflict(gold_unit, unit):
        factor = units.factor(gold_unit, unit)
        return bool(factor) and _same_values(gold_value, f"({value})*{factor}")
    found = _same_values(gold_value, value)
    if not found and (gold_unit == "percent") != (unit == "percent"):
        hundredth = f"( {value} ) / 100" if unit == "percent" else value
        gold_hundredth = f"( {gold_value} ) / 100" if gold_unit == "percent" else gold_value
        found = _same_values(gold_hundredth, hundredth)
    return found


def _same_trees(gold: tuple, answer: tuple) -> bool | None:
    found = values.same(gold, answer)
    if found is False:
        left, right = symbols(gold) - symbols(answer), symbols(answer) - symbols(gold)
        of_angles = any(node == ("pi",) for node in nodes(gold))
        names = _CONSTANTS | _INTEGERS if of_angles else _CONSTANTS
        if len(left) == len(right) == 1 and any(left | right <= own for own in (_INTEGERS & names, _CONSTANTS)):
            return values.same(gold, renamed(answer, *right, *left))
    return found


def _same_values(gold: str, answer: str) -> bool | None:
    texts = "".join(gold.split()), "".join(answer.split())
    exact = number(texts[0]), number(texts[1])
    if None not in exact:
        return same_number(*exact, *texts)
    trees = tree_of(tuple(latex.tokens(gold))), tree_of(tuple(latex.tokens(answer)))
    found = None if None in trees else _same_trees(*trees)
    if found is False and _LOGARITHM.search(gold + answer) and "\\ln" in gold + answer:  # \log may be the natural one
        natural = (tree_of(tuple(latex.tokens(_LOGARITHM.sub(r"\\ln", text)))) for text in (gold, answer))
        return _same_trees(*natural)
    if found is not None:
        return found
    if _LIBRARY.search(gold) or _LIBRARY.search(answer) or None not in trees:
        return settler.get()(gold, answer)
    return None if trees[0] is None else False
