"""Whether an answer is mathematically the gold answer: by outer form first, then by the values of expressions."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar

from . import expression, latex, units, words
from .exact import number, same_number
from .shape import Expression, Group, Matrix, Ratio, Relation, SetOf, Several, Union, parse, signs

_FLIP = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_ORDER = frozenset(_FLIP)
_INFINITY = ("\\infty",)
_MINUS_INFINITY = ("-", "\\infty")
_REALS = ("\\mathbb", "{", "R", "}")
_CONDITION = re.compile(
    r"\\text\{\s*(?:for|where|with|if|when|such that|assuming|is any|, where|, for|as)\b[^{}]*\}.*$|"
    r",?\s*\(?\s*[a-zA-Z]\s*\\in\s*\\mathbb\{[ZNRQ]\}(?:\^\+)?\s*\)?$"
)
_AND = re.compile(r"\\text\{\s*,?\s*(?:and|,)\s*\}|(?<![a-zA-Z\\])and(?![a-zA-Z])|\\&")
_OR = re.compile(r"\\text\{\s*,?\s*or\s*\}|(?<![a-zA-Z\\])or(?![a-zA-Z])")
_ALL_REALS = re.compile(
    r"all (?:the )?(?:real numbers?|reals?|real values?)|(?:any|every) real number|reals?|all x", re.IGNORECASE
)
_LIBRARY = re.compile(
    r"\\(?:sum|prod|i*int|oint|lim|max|min|gcd|lcm|det|sup|inf)(?![a-z])"
)  # what is asked of `settle`
_MAX_ITEMS = 64  # of a list that is matched item by item


# Two expressions that the grammar cannot settle -> the same, not the same, or None when the gold one cannot be read.
Settle = Callable[[str, str], bool | None]
_settle: ContextVar[Settle] = ContextVar("settle", default=lambda gold, answer: None)


def same(gold: str, answer: str, settle: Settle | None = None) -> bool | None:
    """Whether two answers in plain form (`latex.clean`) mean the same; None when that cannot be told.

    Args:
        settle: is asked about expressions, in LaTeX, that the grammar of `expression` cannot settle.
    """
    before = _settle.set(settle) if settle else None
    try:
        found: list[bool | None] = []
        for g, a in itertools.product(_readings(gold), _readings(answer)):
            found.append(_same_shapes(_shape(g), _shape(a)))
            if found[-1]:
                return True
        return None if None in found else False
    finally:
        if before:
            _settle.reset(before)


def is_text(node) -> bool:
    return isinstance(node, Expression) and words.is_words(" ".join(node.tokens))


def _readings(plain: str) -> list[str]:
    """With commas as thousands separators, and as they stand."""
    if not latex.THOUSANDS.search(plain):
        return [plain]
    return [latex.THOUSANDS.sub(lambda m: m.group().replace(",", ""), plain), plain]


@functools.lru_cache(maxsize=256)
def _shape(plain: str):
    plain = _CONDITION.sub("", plain).strip()
    plain = _OR.sub(r" \\lor ", _AND.sub(r" \\land ", plain))
    plain = re.sub(r"^\s*(?:\\land|\\lor)\s*", "", plain)
    inner = re.sub(r"\\text\{([^{}]*)\}", r"\1", plain)
    if _ALL_REALS.fullmatch(inner.strip()):
        plain = "\\mathbb{R}"
    return parse(latex.tokens(plain))


def _expressions(node):
    if isinstance(node, Expression):
        yield node
        return
    for child in getattr(node, "items", ()) or getattr(node, "parts", ()) or getattr(node, "sides", ()):
        yield from _expressions(child)
    for row in getattr(node, "rows", ()):
        for cell in row:
            yield from _expressions(cell)


def _same_shapes(gold, answer) -> bool | None:
    if gold == answer:
        return True
    for region in (_region(gold), _region(answer)):
        if region is not None and (r := _same_regions(_region(gold), _region(answer))) is not None:
            return r
    if _many(gold) or _many(answer):
        return _same_lists(gold, answer)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _same_relations(gold, answer)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _same_rows(_rows(gold), _rows(answer))
    if isinstance(gold, Group) and isinstance(answer, Group):
        return _same_groups(gold, answer)
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        return _same_in_order(gold.parts, answer.parts)
    if isinstance(gold, SetOf) and isinstance(answer, SetOf):
        return _same_shapes(gold.condition, answer.condition)
    if (isinstance(gold, Ratio) and isinstance(answer, Expression)) or (
        isinstance(gold, Expression) and isinstance(answer, Ratio)
    ):
        return _same_ratio(gold, answer)
    if isinstance(gold, Expression) and isinstance(answer, Expression):
        return _same_expressions(gold.tokens, answer.tokens)
    return False


def _same_ratio(gold, answer) -> bool | None:
    """3:4 against 3/4."""
    ratio, other = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
    if len(ratio.parts) != 2 or not all(isinstance(p, Expression) for p in ratio.parts):
        return False
    top, bottom = (p.tokens for p in ratio.parts)
    return _same_expressions(("(", *top, ")", "/", "(", *bottom, ")"), other.tokens)


# Lists and sets


def _many(node) -> bool:
    """Whether a node stands for several values."""
    if isinstance(node, Several):
        return True
    if isinstance(node, Group):
        return node.opener == "\\{" or any(map(_many, node.items))
    if isinstance(node, Relation) and node.ops == ("=",) and _is_name(node.sides[0]):
        return _many(node.sides[1])
    return isinstance(node, Expression) and len(signs(node.tokens)) > 1


def _same_lists(gold, answer) -> bool | None:
    labelled = _labels(gold), _labels(answer)
    if all(labelled) and set(labelled[0]) == set(labelled[1]):
        return _all(_same_shapes(labelled[0][k], labelled[1][k]) for k in labelled[0])
    if isinstance(answer, Group) and answer.opener in "([" and not _many(answer) and isinstance(gold, Several):
        return False if _tuple_of(gold) is None else _same_in_order(_tuple_of(gold), answer.items)
    if isinstance(gold, Group) and gold.opener in "([" and not _many(gold) and isinstance(answer, Several):
        if gold.closer == ")" and _tuple_of(answer) is not None:
            return _same_in_order(gold.items, _tuple_of(answer))
        return False
    return _same_sets(_items(gold), _items(answer))


def _tuple_of(several: Several):
    """x=3, y=1 as the tuple (3, 1); a plain list of values is one too."""
    if several.by != "," and several.by != "\\land":
        return None
    return tuple(_value_side(item) for item in several.items)


def _labels(node) -> dict | None:
    """name -> value of `x=1, y=2`; None when an item has no name, or a name stands twice."""
    if not isinstance(node, Several):
        return None
    found = {}
    for item in node.items:
        if not (isinstance(item, Relation) and item.ops == ("=",) and _is_name(item.sides[0])) or _many(item):
            return None
        found[_plain_name(item.sides[0])] = item.sides[1]
    return found if len(found) == len(node.items) else None


def _items(node) -> list:
    """The values that a node stands for, each sign of +- apart."""
    if isinstance(node, Several):
        if node.by == ";":
            return [
                Group("(", _tuple_of(i), ")") if isinstance(i, Several) and _labels(i) else i for i in _each(node.items)
            ]
        return _each(node.items)
    if isinstance(node, Group) and node.opener == "\\{":
        return _each(node.items)
    if isinstance(node, Group):
        rows = itertools.product(*(_items(item) for item in node.items))
        return [Group(node.opener, tuple(row), node.closer) for row in rows]
    if isinstance(node, Relation) and node.ops == ("=",) and _is_name(node.sides[0]):
        return _items(node.sides[1])
    if isinstance(node, Expression):
        return [Expression(reading) for reading in signs(node.tokens)]
    return [node]


def _each(items) -> list:
    found = []
    for item in items:
        item = _value_side(item)
        expand = _many(item) and not isinstance(item, Several)
        found += _items(item) if expand else [item]
    return found


def _value_side(node):
    if isinstance(node, Relation) and node.ops == ("=",) and _is_name(node.sides[0]):
        return node.sides[1]
    return node


def _same_sets(gold: list, answer: list) -> bool | None:
    """Whether there is a one-to-one match, in any order; a value repeated on one side only counts once."""
    if max(len(gold), len(answer)) > _MAX_ITEMS:
        return None if len(gold) > _MAX_ITEMS else False
    if len(gold) != len(answer):
        gold, answer = _distinct(gold), _distinct(answer)
    if len(gold) != len(answer):
        return False
    left, unsure = list(answer), False
    for g in gold:
        verdicts = [_same_shapes(g, a) for a in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


def _distinct(items: list) -> list:
    found: list = []
    for item in items:
        if not any(_same_shapes(item, other) for other in found):
            found.append(item)
    return found


def _same_in_order(gold: Sequence, answer: Sequence) -> bool | None:
    if len(gold) != len(answer):
        return False
    return _all(_same_shapes(_value_side(g), _value_side(a)) for g, a in zip(gold, answer, strict=True))


def _all(verdicts) -> bool | None:
    unsure = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unsure |= verdict is None
    return None if unsure else True


def _same_groups(gold: Group, answer: Group) -> bool | None:
    if gold.opener == "\\{":
        return _same_sets(list(gold.items), list(answer.items)) if answer.opener == "\\{" else False
    if answer.opener == "\\{":
        return False
    # Two items may be the ends of an interval: there the brackets matter.
    if len(gold.items) == 2 and (gold.opener, gold.closer) != (answer.opener, answer.closer):
        return False
    return _same_in_order(gold.items, answer.items)


# Matrices and vectors


def _rows(node):
    if isinstance(node, Matrix):
        return node.rows
    if isinstance(node, Group) and node.opener != "\\{":
        return tuple((item,) for item in node.items)
    return None


def _same_rows(gold, answer) -> bool | None:
    if gold is None or answer is None:
        return False
    if len(gold) == 1 and len(gold[0]) > 1 and all(len(row) == 1 for row in answer):
        gold = tuple((cell,) for cell in gold[0])  # a row against a tuple
    if len(answer) == 1 and len(answer[0]) > 1 and all(len(row) == 1 for row in gold):
        answer = tuple((cell,) for cell in answer[0])
    if len(gold) != len(answer):
        return False
    return _all(_same_in_order(g, a) for g, a in zip(gold, answer, strict=True))


# Relations


def _is_name(node) -> bool:
    """x, f(x), S_{ABC}, |AB|, \\text{area}: what an answer may be called."""
    if isinstance(node, Group):
        return all(_is_name(item) for item in node.items)
    if isinstance(node, Ratio):
        return all(_is_name(part) for part in node.parts)
    if not isinstance(node, Expression) or not node.tokens:
        return False
    if is_text(node) or node.tokens[0].startswith("\\text"):
        return True
    tree = _tree(node.tokens)
    if tree is None:
        return False
    if tree[0] == "^" and tree[2] == ("-", ("n", "1")):  # A^{-1}, f^{-1}(x)
        tree = tree[1]
    if tree[0] == "abs":
        tree = tree[1]
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


def _plain_name(node) -> str:
    return "".join(t for e in _expressions(node) for t in e.tokens if t not in "{}() ")


def _same_relations(gold, answer) -> bool | None:
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        if gold.ops == answer.ops == ("=",):
            return _same_equations(gold, answer)
        if set(gold.ops) | set(answer.ops) <= _ORDER:
            return _same_chains(gold, answer)
        if gold.ops == answer.ops and "=" not in gold.ops:
            return _same_in_order(gold.sides, answer.sides)
        return _one_of_chain(gold, answer)
    relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    if relation.ops == ("=",):
        left, right = relation.sides
        if _is_name(left):
            return _same_shapes(right, other) if relation is gold else _same_shapes(other, right)
        if relation is answer and _true_identity(left, right):
            return _same_shapes(gold, right)
        return False
    if relation.ops == ("\\in",) and _is_name(relation.sides[0]):
        return _same_shapes(relation.sides[1], other) if relation is gold else _same_shapes(other, relation.sides[1])
    return _one_of_chain(gold, answer)


def _one_of_chain(gold, answer) -> bool | None:
    """a = b = c and a \\approx b: the exact value that the chain gives."""
    if isinstance(gold, Relation) and set(gold.ops) <= {"=", "\\approx"}:
        return _any(_same_shapes(side, answer) for side in _values_of(gold))
    if isinstance(answer, Relation) and set(answer.ops) <= {"=", "\\approx"}:
        values = _values_of(answer)
        if "\\approx" in answer.ops:  # exact \approx rounded: the exact one, or the rounded one where gold is rounded
            return _any(_same_shapes(gold, side) for side in values)
        verdicts = [_same_shapes(gold, side) for side in values]
        return _all(verdicts)
    return False


def _values_of(chain: Relation) -> list:
    return [s for i, s in enumerate(chain.sides) if i or not _is_name(s)] or [chain.sides[-1]]


def _any(verdicts) -> bool | None:
    unsure = False
    for verdict in verdicts:
        if verdict:
            return True
        unsure |= verdict is None
    return None if unsure else False


def _true_identity(left, right) -> bool:
    """Two sides without symbols that are equal: 3 + 4 = 7."""
    if not (isinstance(left, Expression) and isinstance(right, Expression)):
        return False
    trees = _tree(left.tokens), _tree(right.tokens)
    return None not in trees and not any(expression.symbols(t) for t in trees) and bool(_same_shapes(left, right))


def _same_equations(gold: Relation, answer: Relation) -> bool | None:
    (gold_left, gold_right), (left, right) = gold.sides, answer.sides
    if _is_name(gold_left) and _is_name(left):
        if _plain_name(gold_left) == _plain_name(left):
            return _same_shapes(gold_right, right)
        if not _is_name(right) and not _is_name(gold_right):
            return _same_shapes(gold_right, right)
    if not all(isinstance(side, Expression) for side in (gold_left, gold_right, left, right)):
        return _all([_same_shapes(gold_left, left), _same_shapes(gold_right, right)])
    trees = [_difference(r) for r in (gold, answer)]
    if None in trees:
        return None
    if not any(expression.symbols(t) for t in trees):
        return _all([_same_shapes(gold_left, left), _same_shapes(gold_right, right)])
    if _is_name(gold_left) and _same_shapes(gold_left, left):
        return _same_shapes(gold_right, right)
    return expression.ratio(*trees) is not None


def _difference(equation: Relation):
    trees = [_tree(side.tokens) if isinstance(side, Expression) else None for side in equation.sides]
    return None if None in trees else ("+", trees[0], ("-", trees[1]))


def _same_chains(gold: Relation, answer: Relation) -> bool | None:
    """Inequalities in several unknowns: the same chain, read from either end; or the same difference."""
    if len(gold.ops) != len(answer.ops):
        return False
    for chain in (answer, _reversed(answer)):
        if chain.ops == gold.ops and (verdict := _same_in_order(gold.sides, chain.sides)) is not False:
            return verdict
    if len(gold.ops) > 1:
        return False
    for chain in (answer, _reversed(answer)):
        if chain.ops == gold.ops:
            trees = [_difference(r) for r in (gold, chain)]
            found = None if None in trees else expression.ratio(*trees)
            if found is not None:
                return bool(found.real > 0)
    return False


def _reversed(chain: Relation) -> Relation:
    return Relation(chain.sides[::-1], tuple(_FLIP[op] for op in chain.ops[::-1]))


# Regions of the real line: intervals, inequalities in one unknown, unions of them


def _region(node):
    """A tuple of (low, low bracket, high, high bracket), or of single points; None for what is not a region."""
    if isinstance(node, Expression):
        return ((_MINUS_INFINITY, "(", _INFINITY, ")"),) if node.tokens == _REALS else None
    if isinstance(node, Union):
        parts = [_region(part) or _points(part) for part in node.parts]
        return None if None in parts else tuple(piece for part in parts for piece in part)
    if isinstance(node, Several) and node.by in ("\\lor", ",", ";", "\\land"):
        parts = [_region(part) for part in node.items]
        if None in parts:
            return None
        if node.by in ("\\lor",) or (all(isinstance(p, Group) for p in node.items) and node.by != ","):
            return tuple(piece for part in parts for piece in part)
        if all(isinstance(p, Relation) for p in node.items):
            return _intersection(parts) or (
                tuple(piece for part in parts for piece in part) if node.by != "\\land" else None
            )
        return None
    if isinstance(node, Group):
        ends = [item.tokens for item in node.items if isinstance(item, Expression)]
        mixed = (node.opener, node.closer) in (("(", "]"), ("[", ")"))
        if len(ends) == len(node.items) == 2 and node.opener != "\\{":
            infinite = any(_infinite(end) for end in ends)
            if mixed or infinite or (node.opener, node.closer) in (("(", ")"), ("[", "]")):
                return ((_end(ends[0]), node.opener, _end(ends[1]), node.closer),)
        return None
    if isinstance(node, Relation):
        return _region_of_relation(node)
    if isinstance(node, SetOf):
        return _region(node.condition)
    return None


def _infinite(end) -> bool:
    return "\\infty" in end


def _end(tokens):
    tokens = tuple(t for t in tokens if t not in ("{", "}")) if _infinite(tokens) else tokens
    return tokens[1:] if tokens[:1] == ("+",) else tokens


def _points(node):
    if isinstance(node, Group) and node.opener == "\\{" and all(isinstance(i, Expression) for i in node.items):
        return tuple((item.tokens, "[", item.tokens, "]") for item in node.items)
    return None


def _intersection(parts):
    """x > a and x < b: one interval, when one gives the low end and the other the high end."""
    if len(parts) == 2 and all(len(part) == 1 for part in parts):
        (a,), (b,) = parts
        if a[0] == _MINUS_INFINITY and b[2] == _INFINITY:
            a, b = b, a
        if a[2] == _INFINITY and b[0] == _MINUS_INFINITY:
            low, high = _tree(a[0]), _tree(b[2])
            if low and high and not expression.symbols(low) and not expression.symbols(high):
                try:
                    if expression.value(low).real < expression.value(high).real:
                        return ((a[0], a[1], b[2], b[3]),)
                except expression.Unreadable:
                    return None
    return None


def _region_of_relation(node: Relation):
    if node.ops == ("\\in",):
        return _region(node.sides[1]) if _is_name(node.sides[0]) else None
    if not all(isinstance(side, Expression) for side in node.sides):
        return None
    sides = [side.tokens for side in node.sides]
    if node.ops == ("\\neq",) and _unknown(sides[0]) and not _has_symbols(sides[1]):
        return ((_MINUS_INFINITY, "(", sides[1], ")"), (sides[1], "(", _INFINITY, ")"))
    if not set(node.ops) <= _ORDER:
        return None
    if len(sides) == 2:
        if _unknown(sides[1]) and not _has_symbols(sides[0]):
            sides, node = sides[::-1], _reversed(node)
        if not _unknown(sides[0]) or _has_symbols(sides[1]):
            return None
        strict = node.ops[0] in "<>"
        if node.ops[0] in ("<", "\\le"):
            return ((_MINUS_INFINITY, "(", sides[1], ")" if strict else "]"),)
        return ((sides[1], "(" if strict else "[", _INFINITY, ")"),)
    if len(sides) == 3 and _unknown(sides[1]) and not _has_symbols(sides[0]) and not _has_symbols(sides[2]):
        if node.ops[0] in (">", "\\ge"):
            node = _reversed(node)
            sides = sides[::-1]
        if set(node.ops) <= {"<", "\\le"}:
            return (
                (
                    _end(sides[0]),
                    "(" if node.ops[0] == "<" else "[",
                    _end(sides[2]),
                    ")" if node.ops[1] == "<" else "]",
                ),
            )
    return None


def _unknown(tokens) -> bool:
    return _has_symbols(tokens) and _is_name(Expression(tuple(tokens)))


def _has_symbols(tokens) -> bool:
    tree = _tree(tuple(tokens))
    return tree is None or bool(expression.symbols(tree) - {"infty"})


def _same_regions(gold, answer) -> bool | None:
    if gold is None or answer is None:
        return None
    if len(gold) != len(answer):
        return False
    left = list(answer)
    unsure = False
    for piece in gold:
        verdicts = [_same_piece(piece, other) for other in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


def _same_piece(a, b) -> bool | None:
    def bracket(end, sign):
        return "(" if _infinite(end) and sign in "[(" else ")" if _infinite(end) else sign

    if bracket(a[0], a[1]) != bracket(b[0], b[1]) or bracket(a[2], a[3]) != bracket(b[2], b[3]):
        return False
    return _all([_same_expressions(a[0], b[0]), _same_expressions(a[2], b[2])])


# Expressions


@functools.lru_cache(maxsize=1024)
def _tree(tokens: tuple[str, ...]):
    try:
        return expression.parse(list(tokens))
    except expression.Unreadable:
        return None


def _same_expressions(gold: tuple, answer: tuple) -> bool | None:
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
        return False
    found = _same_values(gold_value, value)
    if not found and (gold_unit == "percent") != (unit == "percent"):
        hundredth = f"( {value} ) / 100" if unit == "percent" else value
        gold_hundredth = f"( {gold_value} ) / 100" if gold_unit == "percent" else gold_value
        found = _same_values(gold_hundredth, hundredth)
    return found


def _same_values(gold: str, answer: str) -> bool | None:
    texts = "".join(gold.split()), "".join(answer.split())
    exact = number(texts[0]), number(texts[1])
    if None not in exact:
        return same_number(*exact, *texts)
    trees = _tree(tuple(latex.tokens(gold))), _tree(tuple(latex.tokens(answer)))
    found = None if None in trees else expression.same(*trees)
    if found is not None:
        return found
    if _LIBRARY.search(gold) or _LIBRARY.search(answer) or None not in trees:
        return _settle.get()(gold, answer)
    return None if trees[0] is None else False
