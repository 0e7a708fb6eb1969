"""Infinity: it equals infinity of the same sign and nothing else.

Infinity plus a number, and infinity times a number that is not 0, are infinite. Infinity minus infinity, 0 times
infinity, a function of infinity and a quotient by infinity have no value.
"""

from __future__ import annotations

import mpmath
from mpmath.libmp import NoConvergence

from . import values
from .grammar import Unreadable
from .trees import Tree, nodes, symbols


def is_infinite(tree: Tree) -> bool:
    """Whether infinity occurs in a tree."""
    return any(node == ("infty",) for node in nodes(tree))


def same(gold: Tree, answer: Tree) -> bool | None:
    """Whether two trees are equal, at least one of them with infinity in it; None if the gold one has no value."""
    if symbols(gold) or symbols(answer):
        return False
    signs = _sign(gold), _sign(answer)
    if is_infinite(gold) and signs[0] is None:
        return None
    return is_infinite(gold) and is_infinite(answer) and signs[0] == signs[1]


def _sign(tree: Tree) -> int | None:
    """1 or -1: the sign of an infinite or real value; 0 for 0; None if there is no such value."""
    if not is_infinite(tree):
        return _sign_of_number(tree)
    kind, children = tree[0], tree[1:]
    if kind == "infty":
        return 1
    if kind == "-":
        sign = _sign(tree[1])
        return None if sign is None else -sign
    if kind == "+" and all(_sign(child) is not None for child in children):
        signs = {_sign(child) for child in children if is_infinite(child)}
        return signs.pop() if len(signs) == 1 else None
    if kind == "*" or (kind == "/" and not is_infinite(tree[2])):
        left, right = _sign(tree[1]), _sign(tree[2])
        return left * right if left and right else None
    return None


def _sign_of_number(tree: Tree) -> int | None:
    try:
        number = values.value(tree)
    except (Unreadable, ArithmeticError, ValueError, TypeError, NoConvergence):
        return None
    return int(mpmath.sign(number.real)) if mpmath.isfinite(number) and number.imag == 0 else None
