"""Compare an answer with the gold answer as mathematics: outer form first, then the values of expressions."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence

from . import latex
from .builders import same_set_builders
from .leaves import (
    Library,
    all_of,
    has_value,
    in_call,
    is_quantity,
    leaves_of,
    matched,
    plain_name,
    same_expressions,
    value_side,
)
from .matrices import Rows, rows_of
from .regions import region, same_regions
from .relations import in_order, same_relations
from .shape import Expression, Group, Matrix, Ratio, Relation, SetOf, Several, Shape, Tokens, Union, parse, signs

_RANGE = re.compile(r"(?<=[\d}])\s*\\text\{to\}\s*(?=[\d\\])|(?<=\d) to (?=\d)")  # 2 to 3
_CONDITION = re.compile(
    r"\\text\{\s*(?:for|where|with|if|when|such that|assuming|is any|, where|, for|as)\b[^{}]*\}.*$|"
    r",?\s*\(?\s*[a-zA-Z]\s*\\in\s*\\mathbb\{[ZNRQ]\}(?:\^\+)?\s*\)?$"
)
_INTEGERS = re.compile(r"([a-zA-Z])\s*\\in\s*\\mathbb\s*\{\s*Z\s*\}")
_AND = re.compile(r"\\text\{\s*,?\s*(?:and|,)\s*\}|(?<![a-zA-Z\\])and(?![a-zA-Z])|\\&")
_OR = re.compile(r"\\text\{\s*,?\s*or\s*\}|(?<![a-zA-Z\\])or(?![a-zA-Z])")
_ALL_REALS = re.compile(
    r"all (?:the )?(?:real numbers?|reals?|real values?)|(?:any|every) real number|reals?|all x", re.IGNORECASE
)
_ALL_INTEGERS = re.compile(r"all (?:the )?integers?|(?:any|every) integer|integers", re.IGNORECASE)
_MODULUS = re.compile(r"\(?\s*\\(?:pmod|mod)(?![a-z])\s*(?:\{\s*([^{}]*?)\s*\}|(\w+))\s*\)?")
_SET_MINUS = re.compile(r"(?<=[\w})\]])\s*-\s*\\\{")  # \mathbb{R} - \{0\}
_MAX_ITEMS = 64  # of a list that is compared item by item


def same(gold: str, answer: str, library: Library | None = None) -> bool | None:
    """Whether two answers in plain form (`latex.clean`) mean the same; None if it cannot be decided.

    Args:
        library: compares two expressions, in LaTeX, that the grammar cannot compare.
    """
    integers = frozenset("k").union(_INTEGERS.findall(gold), _INTEGERS.findall(answer))
    with in_call(library, integers):
        results: list[bool | None] = []
        moduli = [["".join(groups) for groups in _MODULUS.findall(text)] for text in (gold, answer)]
        if all(moduli) and moduli[0] != moduli[1]:
            return False
        if any(moduli):  # one of them may say 3 in place of 3 (mod 7)
            gold, answer = map(_without_modulus, (gold, answer))
        for g, a in itertools.product(_readings(gold), _readings(answer)):
            results.append(_same_shapes(_shape(g), _shape(a)))
            if results[-1]:
                return True
        return None if None in results else False


def is_gradable(gold: str, library: Library | None = None) -> bool:
    """Whether a gold answer in plain form can be compared with others: each of its values can be computed.

    Raises:
        ValueError: see `_as_group`.
    """
    with in_call(library, frozenset("k")):
        shapes = [_shape(reading) for reading in _readings(_without_modulus(gold))]
        if any(len(_items(shape)) > _MAX_ITEMS for shape in shapes):
            return False
        return all(has_value(tokens) for shape in shapes for tokens in leaves_of(shape))


def _without_modulus(plain: str) -> str:
    return _MODULUS.sub("", plain).replace("\\equiv", "=")


def _readings(plain: str) -> list[str]:
    """The answer with its commas read as thousands separators, and the answer itself."""
    if not latex.THOUSANDS.search(plain):
        return [plain]
    return [latex.THOUSANDS.sub(lambda m: m.group().replace(",", ""), plain), plain]


@functools.lru_cache(maxsize=256)
def _shape(plain: str) -> Shape:
    plain = _CONDITION.sub("", plain).strip() or plain
    plain = _SET_MINUS.sub(r" \\setminus \\{", _RANGE.sub(":", plain))
    plain = _OR.sub(r" \\lor ", _AND.sub(r" \\land ", plain))
    plain = re.sub(r"^\s*(?:\\land|\\lor)\s*", "", plain)
    inner = re.sub(r"\\text\{([^{}]*)\}", r"\1", plain)
    if _ALL_REALS.fullmatch(inner.strip()):
        plain = "\\mathbb{R}"
    if _ALL_INTEGERS.fullmatch(inner.strip()):
        plain = "\\mathbb{Z}"
    return parse(latex.tokens(plain))


def _same_shapes(gold: Shape, answer: Shape) -> bool | None:
    if gold == answer:
        return True
    equal = same_regions(region(gold), region(answer))
    if equal is not None:
        return equal
    if isinstance(gold, SetOf) or isinstance(answer, SetOf):
        return same_set_builders(gold, answer, _same_shapes)
    if Matrix in (type(gold), type(answer)) and isinstance(gold, Matrix | Group) and isinstance(answer, Matrix | Group):
        return _same_rows(rows_of(gold), rows_of(answer))
    if _many(gold) or _many(answer):
        return _same_lists(gold, answer)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return same_relations(gold, answer, _same_shapes)
    if isinstance(gold, Group) and isinstance(answer, Group):
        return _same_groups(gold, answer)
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        return _same_ratios(gold, answer)
    if isinstance(gold, Union) and isinstance(answer, Union):
        return _same_sets(list(gold.parts), list(answer.parts))
    if {type(gold), type(answer)} == {Ratio, Expression}:
        return _same_ratio(gold, answer)
    if isinstance(gold, Expression) and isinstance(answer, Expression):
        return same_expressions(gold.tokens, answer.tokens)
    return False


def _same_ratio(gold: Shape, answer: Shape) -> bool | None:
    """Compare 3:4 with 3/4, in either order."""
    sides = [_fraction(*s.parts) if isinstance(s, Ratio) and len(s.parts) == 2 else s for s in (gold, answer)]
    gold_tokens, tokens = (side.tokens if isinstance(side, Expression) else side for side in sides)
    if not isinstance(gold_tokens, tuple) or not isinstance(tokens, tuple):
        return False
    return same_expressions(gold_tokens, tokens)


def _fraction(top: Shape, bottom: Shape) -> Tokens | None:
    if not isinstance(top, Expression) or not isinstance(bottom, Expression):
        return None
    return ("(", *top.tokens, ")", "/", "(", *bottom.tokens, ")")


def _same_ratios(gold: Ratio, answer: Ratio) -> bool | None:
    """Compare 2:3 with 4:6: part by part, or each part's ratio to the next one."""
    equal = in_order(gold.parts, answer.parts, _same_shapes)
    if equal is not False or len(gold.parts) != len(answer.parts):
        return equal
    fractions = [[_fraction(*pair) for pair in itertools.pairwise(ratio.parts)] for ratio in (gold, answer)]
    if None in (*fractions[0], *fractions[1]):
        return False
    return all_of(same_expressions(g, a) for g, a in zip(*fractions, strict=True) if g and a)


# Lists and sets


def _many(node: Shape) -> bool:
    """Whether a node means several values."""
    if isinstance(node, Several):
        return True
    if isinstance(node, Group):
        return node.opener == "\\{" or any(map(_many, node.items))
    if value_side(node) is not node:
        return _many(value_side(node))
    return isinstance(node, Expression) and len(signs(node.tokens)) > 1


def _same_lists(gold: Shape, answer: Shape) -> bool | None:
    gold_labels, labels = _labels(gold), _labels(answer)
    if gold_labels and labels and set(gold_labels) == set(labels):
        return all_of(_same_shapes(gold_labels[k], labels[k]) for k in gold_labels)
    gold, answer = value_side(gold), value_side(answer)
    if isinstance(answer, Group) and answer.opener in "([" and not _many(answer) and isinstance(gold, Several):
        row = _tuple_of(gold)
        return False if row is None else in_order(row, answer.items, _same_shapes)
    if isinstance(gold, Group) and gold.opener in "([" and not _many(gold) and isinstance(answer, Several):
        row = _tuple_of(answer)
        is_interval = any(isinstance(item, Expression) and "\\infty" in item.tokens for item in gold.items)
        if gold.closer != ")" or row is None or is_interval:
            return False
        return in_order(gold.items, row, _same_shapes)
    return _same_sets(_items(gold), _items(answer))


def _tuple_of(several: Several) -> tuple[Shape, ...] | None:
    """The tuple (3, 1) of x=3, y=1, or of the plain list 3, 1; None for a list by another separator."""
    if several.by != "," and several.by != "\\land":
        return None
    return tuple(value_side(item) for item in several.items)


def _labels(node: Shape) -> dict[str, Shape] | None:
    """name -> value of `x=1, y=2`; None if an item has no name, or a name occurs twice."""
    if not isinstance(node, Several):
        return None
    labels = {}
    for item in node.items:
        if not (isinstance(item, Relation) and item.ops == ("=",) and is_quantity(item.sides[0])) or _many(item):
            return None
        labels[plain_name(item.sides[0])] = item.sides[1]
    return labels if len(labels) == len(node.items) else None


def _items(node: Shape) -> list[Shape]:
    """The values of a node, each sign of +- apart."""
    if isinstance(node, Several):
        return [_as_group(item) for item in _each(node.items)] if node.by == ";" else _each(node.items)
    if isinstance(node, Group) and node.opener == "\\{":
        return _each(node.items)
    if isinstance(node, Group):
        rows = itertools.product(*(_items(item) for item in node.items))
        return [Group(node.opener, tuple(row), node.closer) for row in rows]
    if value_side(node) is not node:
        return _items(value_side(node))
    if isinstance(node, Expression):
        return [Expression(reading) for reading in signs(node.tokens)]
    return [node]


def _as_group(item: Shape) -> Shape:
    """x=3, y=1 as a group (3, 1); any other node itself.

    Raises:
        ValueError: the node is a list such as `x=3 or y=1`; the pair is ungradable.
    """
    if not isinstance(item, Several) or not _labels(item):
        return item
    row = _tuple_of(item)
    if row is None:
        raise ValueError("named values that are joined by `or`, inside a list")
    return Group("(", row, ")")


def _each(items: Iterable[Shape]) -> list[Shape]:
    values = []
    for item in items:
        item = value_side(item)
        is_plain = isinstance(item, Several) and item.by == "," and not any(isinstance(i, Relation) for i in item.items)
        expand = _many(item) and (is_plain or not isinstance(item, Several))  # 1, 2 and 3
        values += _items(item) if expand else [item]
    return values


def _same_sets(gold: Sequence[Shape], answer: Sequence[Shape]) -> bool | None:
    """Whether there is a one-to-one match, in any order. A value that only one side repeats counts once."""
    if max(len(gold), len(answer)) > _MAX_ITEMS:
        return None if len(gold) > _MAX_ITEMS else False
    if len(gold) != len(answer):
        gold, answer = _distinct(gold), _distinct(answer)
    return matched(gold, answer, _same_shapes)


def _distinct(items: Sequence[Shape]) -> list[Shape]:
    distinct: list[Shape] = []
    for item in items:
        if not any(_same_shapes(item, other) for other in distinct):
            distinct.append(item)
    return distinct


def _same_groups(gold: Group, answer: Group) -> bool | None:
    if gold.opener == "\\{":
        return _same_sets(list(gold.items), list(answer.items)) if answer.opener == "\\{" else False
    if answer.opener == "\\{":
        return False
    # Two items may be the ends of an interval: there the brackets matter.
    if len(gold.items) == 2 and (gold.opener, gold.closer) != (answer.opener, answer.closer):
        return False
    return in_order(gold.items, answer.items, _same_shapes)


# Matrices and vectors


def _same_rows(gold: Rows | None, answer: Rows | None) -> bool | None:
    if gold is None or answer is None:
        return False
    if len(gold) == 1 and len(gold[0]) > 1 and all(len(row) == 1 for row in answer):
        gold = tuple((cell,) for cell in gold[0])  # a row against a tuple
    if len(answer) == 1 and len(answer[0]) > 1 and all(len(row) == 1 for row in gold):
        answer = tuple((cell,) for cell in answer[0])
    if len(gold) != len(answer):
        return False
    return all_of(in_order(g, a, _same_shapes) for g, a in zip(gold, answer, strict=True))
