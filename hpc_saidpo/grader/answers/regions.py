"""Regions of the real line: intervals, inequalities in one unknown, and their unions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from . import values
from .functions import Unreadable
from .leaves import all_of, is_name, matched, same_expressions, tree_of
from .shape import (
    ORDER,
    Expression,
    Group,
    Relation,
    SetOf,
    Several,
    Shape,
    Tokens,
    Union,
    Without,
    reversed_chain,
)
from .trees import symbols

Piece = tuple[Tokens, str, Tokens, str]  # low end, its bracket, high end, its bracket; a point: both ends alike
Region = tuple[Piece, ...]
_INFINITY = ("\\infty",)
_MINUS_INFINITY = ("-", "\\infty")
_LINE: Region = ((_MINUS_INFINITY, "(", _INFINITY, ")"),)
_REALS = ("\\mathbb", "{", "R", "}")


def region(node: Shape) -> Region | None:
    """The pieces of a region of the real line; None for any other node."""
    if isinstance(node, Expression):
        return _LINE if node.tokens == _REALS else None
    if isinstance(node, Union):
        return _joined([region(part) or _points(part) for part in node.parts])
    if isinstance(node, Several) and node.by in ("\\lor", ",", ";", "\\land"):
        return _of_several(node)
    if isinstance(node, Group):
        return _of_group(node)
    if isinstance(node, Relation):
        return _region_of_relation(node)
    if isinstance(node, SetOf):
        return region(node.condition)
    return _all_but(node) if isinstance(node, Without) else None


def _of_several(node: Several) -> Region | None:
    parts = [region(part) for part in node.items]
    union = _joined(parts)
    if union is None:
        return None
    if node.by == "\\lor" or (all(isinstance(p, Group) for p in node.items) and node.by != ","):
        return union
    if all(isinstance(p, Relation) for p in node.items):
        return _intersection(parts) or (union if node.by != "\\land" else None)
    return None


def _of_group(node: Group) -> Region | None:
    ends = [item.tokens for item in node.items if isinstance(item, Expression)]
    mixed = (node.opener, node.closer) in (("(", "]"), ("[", ")"))
    if len(ends) == len(node.items) == 2 and node.opener != "\\{":
        infinite = any(_infinite(end) for end in ends)
        if mixed or infinite or (node.opener, node.closer) in (("(", ")"), ("[", "]")):
            return ((_end(ends[0]), node.opener, _end(ends[1]), node.closer),)
    return None


def _joined(parts: Sequence[Region | None]) -> Region | None:
    """The pieces of all parts; None if one part is no region."""
    pieces: list[Piece] = []
    for part in parts:
        if part is None:
            return None
        pieces += part
    return tuple(pieces)


def _infinite(end: Tokens) -> bool:
    return "\\infty" in end


def _end(tokens: Tokens) -> Tokens:
    tokens = tuple(t for t in tokens if t not in ("{", "}")) if _infinite(tokens) else tokens
    return tokens[1:] if tokens[:1] == ("+",) else tokens


def _points(node: Shape) -> Region | None:
    if not isinstance(node, Group) or node.opener != "\\{":
        return None
    points = [item.tokens for item in node.items if isinstance(item, Expression)]
    return tuple((point, "[", point, "]") for point in points) if len(points) == len(node.items) else None


def _all_but(node: Without) -> Region | None:
    """The real numbers, or an interval, without some points inside."""
    whole, points = region(node.whole), _points(node.taken)
    if whole is None or len(whole) != 1 or not points or any(_has_symbols(point) for point, *_ in points):
        return None
    ((low, opener, high, closer),) = whole
    try:
        cuts = sorted((_real(point), point) for point, *_ in points)
        is_inside = (_infinite(low) or _real(low) < cuts[0][0]) and (_infinite(high) or cuts[-1][0] < _real(high))
    except Unreadable:
        return None
    if not is_inside:
        return None
    openers, closers = [opener, *"(" * len(cuts)], [*")" * len(cuts), closer]
    ends = itertools.pairwise([low, *(tokens for _, tokens in cuts), high])
    return tuple((a, left, b, right) for left, (a, b), right in zip(openers, ends, closers, strict=True))


def _real(tokens: Tokens) -> Any:
    """The real part of an expression without symbols, a number of mpmath. Raises: as `values.value`."""
    tree = tree_of(tokens)
    if tree is None:
        raise Unreadable("outside the grammar")
    return values.value(tree).real


def _intersection(parts: Sequence[Region | None]) -> Region | None:
    """x > a and x < b as one interval, if one part is open below and the other above."""
    if len(parts) == 2 and parts[0] and parts[1] and len(parts[0]) == len(parts[1]) == 1:
        (a,), (b,) = parts[0], parts[1]
        if a[0] == _MINUS_INFINITY and b[2] == _INFINITY:
            a, b = b, a
        if a[2] == _INFINITY and b[0] == _MINUS_INFINITY:
            low, high = tree_of(a[0]), tree_of(b[2])
            if low and high and not symbols(low) and not symbols(high):
                try:
                    if values.value(low).real < values.value(high).real:
                        return ((a[0], a[1], b[2], b[3]),)
                except Unreadable:
                    return None
    return None


def _region_of_relation(node: Relation) -> Region | None:
    pieces = _region_of_chain(node)
    unknown = next((side for side in node.sides if isinstance(side, Expression) and _is_absolute(side.tokens)), None)
    if pieces is None or unknown is None or len(pieces) != 1:
        return pieces
    ((low, opener, high, closer),) = pieces  # the region of |x|, which is not below 0
    mirrored = (_minus(high), {")": "(", "]": "["}[closer], _minus(low), {"(": ")", "[": "]"}[opener])
    if low == _MINUS_INFINITY:
        return ((_minus(high), mirrored[1], high, closer),)
    return (mirrored, *pieces)


def _is_absolute(tokens: Tokens) -> bool:
    tree = tree_of(tuple(tokens))
    return tree is not None and tree[0] == "abs"


def _minus(tokens: Tokens) -> Tokens:
    return _MINUS_INFINITY if tokens == _INFINITY else ("-", "(", *tokens, ")")


def _region_of_chain(node: Relation) -> Region | None:
    if node.ops == ("\\in",):
        return region(node.sides[1]) if is_name(node.sides[0]) else None
    sides = [side.tokens for side in node.sides if isinstance(side, Expression)]
    if len(sides) != len(node.sides):
        return None
    if node.ops == ("\\neq",) and _unknown(sides[0]) and not _has_symbols(sides[1]):
        return ((_MINUS_INFINITY, "(", sides[1], ")"), (sides[1], "(", _INFINITY, ")"))
    if not set(node.ops) <= ORDER:
        return None
    if len(sides) == 2:
        if _unknown(sides[1]) and not _has_symbols(sides[0]):
            sides, node = sides[::-1], reversed_chain(node)
        if not _unknown(sides[0]) or _has_symbols(sides[1]):
            return None
        strict = node.ops[0] in "<>"
        if node.ops[0] in ("<", "\\le"):
            return ((_MINUS_INFINITY, "(", sides[1], ")" if strict else "]"),)
        return ((sides[1], "(" if strict else "[", _INFINITY, ")"),)
    if len(sides) == 3 and _unknown(sides[1]) and not _has_symbols(sides[0]) and not _has_symbols(sides[2]):
        if node.ops[0] in (">", "\\ge"):
            node = reversed_chain(node)
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


def _unknown(tokens: Tokens) -> bool:
    return _has_symbols(tokens) and is_name(Expression(tuple(tokens)))


def _has_symbols(tokens: Tokens) -> bool:
    tree = tree_of(tuple(tokens))
    return tree is None or bool(symbols(tree))


def same_regions(gold: Region | None, answer: Region | None) -> bool | None:
    """Whether two regions have the same pieces, in any order; None if one is no region, or it cannot be decided."""
    return None if gold is None or answer is None else matched(gold, answer, _same_piece)


def _same_piece(a: Piece, b: Piece) -> bool | None:
    def bracket(end: Tokens, sign: str) -> str:
        return "(" if _infinite(end) and sign in "[(" else ")" if _infinite(end) else sign

    if bracket(a[0], a[1]) != bracket(b[0], b[1]) or bracket(a[2], a[3]) != bracket(b[2], b[3]):
        return False
    return all_of([same_expressions(a[0], b[0]), same_expressions(a[2], b[2])])
