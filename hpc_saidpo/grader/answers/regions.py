"""Regions of the real line: intervals, inequalities in one unknown, and unions of them."""

from __future__ import annotations

import itertools

from . import values
from .grammar import Unreadable, symbols
from .leaves import all_of, is_name, matched, same_expressions, tree_of
from .shape import ORDER, Expression, Group, Relation, SetOf, Several, Union, Without, reversed_chain

_INFINITY = ("\\infty",)
_MINUS_INFINITY = ("-", "\\infty")
_LINE = ((_MINUS_INFINITY, "(", _INFINITY, ")"),)
_REALS = ("\\mathbb", "{", "R", "}")


def region(node):
    """A tuple of (low, low bracket, high, high bracket), or of single points; None for what is not a region."""
    if isinstance(node, Expression):
        return _LINE if node.tokens == _REALS else None
    if isinstance(node, Union):
        parts = [region(part) or _points(part) for part in node.parts]
        return None if None in parts else tuple(piece for part in parts for piece in part)
    if isinstance(node, Several) and node.by in ("\\lor", ",", ";", "\\land"):
        parts = [region(part) for part in node.items]
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
        return region(node.condition)
    return _all_but(node) if isinstance(node, Without) else None


def _infinite(end) -> bool:
    return "\\infty" in end


def _end(tokens):
    tokens = tuple(t for t in tokens if t not in ("{", "}")) if _infinite(tokens) else tokens
    return tokens[1:] if tokens[:1] == ("+",) else tokens


def _points(node):
    if isinstance(node, Group) and node.opener == "\\{" and all(isinstance(i, Expression) for i in node.items):
        return tuple((item.tokens, "[", item.tokens, "]") for item in node.items)
    return None


def _all_but(node: Without):
    """The real numbers without some points."""
    if region(node.whole) != _LINE or not _points(node.taken):
        return None
    try:
        cuts = sorted((values.value(tree_of(p[0])).real, p[0]) for p in _points(node.taken) if not _has_symbols(p[0]))
    except Unreadable:
        return None
    ends = [_MINUS_INFINITY, *(tokens for _, tokens in cuts), _INFINITY]
    return tuple((low, "(", high, ")") for low, high in itertools.pairwise(ends))


def _intersection(parts):
    """x > a and x < b: one interval, when one gives the low end and the other the high end."""
    if len(parts) == 2 and all(len(part) == 1 for part in parts):
        (a,), (b,) = parts
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


def _region_of_relation(node: Relation):
    found = _region_of_chain(node)
    unknown = next((side for side in node.sides if isinstance(side, Expression) and _is_absolute(side.tokens)), None)
    if found is None or unknown is None or len(found) != 1:
        return found
    ((low, opener, high, closer),) = found  # of |x|, which is not below 0
    mirrored = (_minus(high), {")": "(", "]": "["}[closer], _minus(low), {"(": ")", "[": "]"}[opener])
    if low == _MINUS_INFINITY:
        return ((_minus(high), mirrored[1], high, closer),)
    return (mirrored, *found)


def _is_absolute(tokens) -> bool:
    tree = tree_of(tuple(tokens))
    return tree is not None and tree[0] == "abs"


def _minus(tokens):
    return _MINUS_INFINITY if tokens == _INFINITY else ("-", "(", *tokens, ")")


def _region_of_chain(node: Relation):
    if node.ops == ("\\in",):
        return region(node.sides[1]) if is_name(node.sides[0]) else None
    if not all(isinstance(side, Expression) for side in node.sides):
        return None
    sides = [side.tokens for side in node.sides]
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


def _unknown(tokens) -> bool:
    return _has_symbols(tokens) and is_name(Expression(tuple(tokens)))


def _has_symbols(tokens) -> bool:
    tree = tree_of(tuple(tokens))
    return tree is None or bool(symbols(tree) - {"infty"})


def same_regions(gold, answer) -> bool | None:
    """Whether two regions have the same pieces, in any order; None when one of them is no region, or cannot be told."""
    return None if gold is None or answer is None else matched(gold, answer, _same_piece)


def _same_piece(a, b) -> bool | None:
    def bracket(end, sign):
        return "(" if _infinite(end) and sign in "[(" else ")" if _infinite(end) else sign

    if bracket(a[0], a[1]) != bracket(b[0], b[1]) or bracket(a[2], a[3]) != bracket(b[2], b[3]):
        return False
    return all_of([same_expressions(a[0], b[0]), same_expressions(a[2], b[2])])
