"""Compare expressions, the leaves of an answer: as words, as values, and without their units."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import is_dataclass
from typing import TypeVar

from . import infinity, latex, units, values, words
from .exact import number, same_number, without_blanks
from .families import same_family
from .functions import Unreadable
from .grammar import in_radians, parse
from .shape import Expression, Group, Ratio, Relation, SetOf, Shape, Tokens, signs
from .trees import Tree, nodes, replaced, symbols

T = TypeVar("T")
_DERIVATIVE = re.compile(r"\\frac\{d\w?\}\{d\w\}|d\w/d\w")
# Parts of `quantity = value`, with a blank between tokens: AB or \angle A_1; x or \theta; a square.
_NAME = r"(?:\\[a-z]+ |[A-Z] (?:' )*(?:_ (?:\{ )?\w+ (?:\} )?)?){0,5}[A-Z](?: ')*(?: _ (?:\{ )?\w+(?: \})?)?"
_LETTER = r"(?:\\[a-z]+|[a-zA-Z])(?: _ (?:\{ )?\w+(?: \})?)?"
_SQUARE = r"(?: \^ (?:\{ )?2(?: \})?)?"
_QUANTITY = re.compile(
    rf"(?:\\frac \{{ )?{_NAME}{_SQUARE}(?:(?: \}} \{{ | / | \* ){_NAME})?(?: \}})?"
    rf"|\\frac \{{ {_LETTER} \}} \{{ {_LETTER} \}}|{_LETTER} / {_LETTER}"
    rf"|\\(?:sin|cos|tan|cot|sec){_SQUARE}(?: \()?(?: \{{)? (?:{_NAME}|{_LETTER})(?: \}})?(?: \))?"
    r"|(?:[PEDVN]|\\text\{\w+\}) [(\[] .*[)\]]|\[ [A-Z ]+ \]|(?:\| )?\\(?:vec|overrightarrow) .*"
    r"|\\(?:lim|sum|prod|int|max|min) .*"
)
_LOGARITHM = re.compile(r"\\log(?!\s*_)(?![a-z])")
# Names for any integer, as in pi/2 + k pi, and for any constant: one name is as good as another.
_INTEGERS = frozenset("kmn")
_CONSTANTS = frozenset(("C", "c", "C_1", "C_{1}", "c_1", "c_{1}", "C_0", "C_{0}"))
_FOR_LIBRARY = re.compile(r"\\(?:sum|prod|i*int|oint|lim|max|min|gcd|lcm|det|sup|inf)(?![a-z])")
# (gold, answer), expressions that the grammar cannot compare -> equal or not; None if the gold one cannot be read.
Same = Callable[[Shape, Shape], bool | None]  # whether two shapes mean the same: `compare._same_shapes`
Library = Callable[[str, str], bool | None]
# Names of integers in the answers that are compared, as in `k \pi, k \in \mathbb{Z}`.
integers_of_call: ContextVar[frozenset[str]] = ContextVar("integers", default=frozenset("k"))
library_of_call: ContextVar[Library] = ContextVar("library", default=lambda gold, answer: None)


@contextmanager
def in_call(library: Library | None, integers: frozenset[str]) -> Iterator[None]:
    """Use a library, if there is one, and names of integers while two answers are compared."""
    library_before = library_of_call.set(library or library_of_call.get())
    integers_before = integers_of_call.set(integers)
    try:
        yield
    finally:
        integers_of_call.reset(integers_before)
        library_of_call.reset(library_before)


def expressions(node: Shape) -> Iterator[Expression]:
    """Every expression of a node, from left to right."""
    if isinstance(node, Expression):
        yield node
        return
    for child in getattr(node, "items", ()) or getattr(node, "parts", ()) or getattr(node, "sides", ()):
        yield from expressions(child)
    for row in getattr(node, "rows", ()):
        for cell in row:
            yield from expressions(cell)


def leaves_of(node: object) -> Iterator[Tokens]:
    """The tokens of every expression of a shape, set-builders and differences of sets included."""
    if isinstance(node, Expression):
        yield node.tokens
    elif isinstance(node, SetOf):
        yield node.element
        yield from leaves_of(node.condition)
    elif isinstance(node, tuple):
        for item in node:
            yield from leaves_of(item)
    elif is_dataclass(node):
        for item in vars(node).values():
            yield from leaves_of(item)


def has_value(tokens: Tokens) -> bool:
    """Whether an expression can be compared at all: it is words, or its values can be computed."""
    if words.is_words(" ".join(tokens)):
        return True
    numbers = [units.split(_glued(reading))[0] for reading in signs(tokens)]
    return all(_same_values(number, f"( {number} )") is not None for number in numbers)


def is_text(node: Shape) -> bool:
    """Whether a node is an expression of words."""
    return isinstance(node, Expression) and words.is_words(" ".join(node.tokens))


def is_name(node: Shape) -> bool:
    """Whether a node can be the name of an answer: x, f(x), S_{ABC}, |AB|, \\text{area}."""
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
                r"[A-Z]{2,4}'*|\|?[A-Z]{2}\|?|\\?[A-Za-z]+(?:_\{?[^\W_]+\}?|\^\{?-1\}?|')*\((?:[A-Za-z0-9]|,|\\[a-z]+)+\)",
                letters,
            )
        )
    return False


def is_quantity(node: Shape) -> bool:
    r"""Whether a node can be the left side of `quantity = value`: a name, \frac{AB}{CD}, \sin A, \angle ABC, P(A|B)."""
    if is_name(node):
        return True
    if not isinstance(node, Expression):
        return False
    return bool(_QUANTITY.fullmatch(" ".join(node.tokens)))


def value_side(node: Shape) -> Shape:
    r"""The value of `x = value` and the set of `x \in set`; any other node itself."""
    if isinstance(node, Relation) and node.ops in (("=",), ("\\in",)) and is_quantity(node.sides[0]):
        return node.sides[1]
    return node


def plain_name(node: Shape) -> str:
    """The name of a value, without braces and blanks."""
    return "".join(t for e in expressions(node) for t in e.tokens if t not in "{}() ")


def all_of(verdicts: Iterable[bool | None]) -> bool | None:
    """True if all are true, False if one is false, else None."""
    unsure = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unsure |= verdict is None
    return None if unsure else True


def any_of(verdicts: Iterable[bool | None]) -> bool | None:
    """True if one is true, else None if one is None, else False."""
    unsure = False
    for verdict in verdicts:
        if verdict:
            return True
        unsure |= verdict is None
    return None if unsure else False


def matched(gold: Sequence[T], answer: Sequence[T], same: Callable[[T, T], bool | None]) -> bool | None:
    """Whether the items of both sides form pairs, in any order; None if it cannot be decided."""
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
def tree_of(tokens: Tokens) -> Tree | None:
    """The tree of an expression; None if it is outside the grammar."""
    try:
        return parse(list(tokens))
    except Unreadable:
        return None


def same_expressions(gold: Tokens, answer: Tokens) -> bool | None:
    """Whether two expressions mean the same; None if it cannot be decided."""
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
    values_in_words = words.number_in_words(gold), words.number_in_words(answer)
    if values_in_words == (None, None):
        return False
    texts = without_blanks(gold), without_blanks(answer)
    numbers = [number(text) if value is None else value for text, value in zip(texts, values_in_words, strict=True)]
    return numbers[0] is not None and numbers[0] == numbers[1]


def _same_without_units(gold: str, answer: str, verdict: bool | None) -> bool | None:
    (gold_value, gold_unit), (value, unit) = units.split(gold), units.split(answer)
    if not gold_unit and not unit:
        return verdict
    if units.conflict(gold_unit, unit):
        factor = units.factor(gold_unit, unit)
        return bool(factor) and _same_values(gold_value, f"({value})*{factor}")
    equal = _same_values(gold_value, value)
    if not equal and (gold_unit == "percent") != (unit == "percent"):
        hundredth = f"( {value} ) / 100" if unit == "percent" else value
        gold_hundredth = f"( {gold_value} ) / 100" if gold_unit == "percent" else gold_value
        equal = _same_values(gold_hundredth, hundredth)
    return equal


def _same_trees(gold: Tree | None, answer: Tree | None) -> bool | None:
    if gold is None or answer is None:
        return None
    if infinity.is_infinite(gold) or infinity.is_infinite(answer):
        return infinity.same(gold, answer)
    equal = values.same(gold, answer)
    if equal is False:
        if _has(gold, "degree") != _has(answer, "degree") and _has(gold, "pi") != _has(answer, "pi"):
            return values.same(in_radians(gold), in_radians(answer))
        left, right = symbols(gold) - symbols(answer), symbols(answer) - symbols(gold)
        of_angles = _has(gold, "pi")
        names = _CONSTANTS | _INTEGERS if of_angles else _CONSTANTS
        alikes = _INTEGERS & names, _CONSTANTS, integers_of_call.get()
        if len(left) == len(right) == 1 and any(left | right <= alike for alike in alikes):
            (old,), (new,) = right, left
            renamed = replaced(answer, old, ("symbol", new))
            return values.same(gold, renamed) or _same_for_integers(gold, renamed)
        return of_angles and _same_for_integers(gold, answer)
    return equal


def _same_for_integers(gold: Tree, answer: Tree) -> bool:
    """Whether the values are the same ones over all integers, as of k pi and (k + 1) pi."""
    return symbols(gold) == symbols(answer) <= integers_of_call.get() and same_family(gold, answer)


def _has(tree: Tree, constant: str) -> bool:
    return any(node == (constant,) for node in nodes(tree))


def _same_values(gold: str, answer: str) -> bool | None:
    texts = without_blanks(gold), without_blanks(answer)
    exact_gold, exact = number(texts[0]), number(texts[1])
    if exact_gold is not None and exact is not None:
        return same_number(exact_gold, exact, *texts)
    trees = tree_of(tuple(latex.tokens(gold))), tree_of(tuple(latex.tokens(answer)))
    equal = _same_trees(*trees)
    if equal is False and _LOGARITHM.search(gold + answer) and "\\ln" in gold + answer:  # \log may be the natural one
        natural = [tree_of(tuple(latex.tokens(_LOGARITHM.sub(r"\\ln", text)))) for text in (gold, answer)]
        return _same_trees(natural[0], natural[1])
    if equal is not None:
        return equal
    if _FOR_LIBRARY.search(gold) or _FOR_LIBRARY.search(answer) or None not in trees:
        undefined = any(tree is not None and infinity.is_undefined(tree) for tree in trees)
        return False if undefined else library_of_call.get()(gold, answer)
    return None if trees[0] is None else False
