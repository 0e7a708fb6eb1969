"""Infinity: it equals infinity of the same sign and nothing else.

Infinity plus a number, and infinity times a number that is not 0, are infinite. Infinity minus infinity, 0 times
infinity, a function of infinity and a quotient by infinity have no value.
"""

from __future__ import annotations

import mpmath
from mpmath.libmp import NoConvergence

from . import values
from .functions import Unreadable
from .trees import Tree, nodes, symbols


def is_infinite(tree: Tree) -> bool:
    """Whether infinity occurs in a tree."""
    return any(node == ("infty",) for node in nodes(tree))


def same(gold: Tree, answer: Tree) -> bool:
    """Whether two trees are equal, at least one of them with infinity in it."""
    if symbols(gold) or symbols(answer) or not (is_infinite(gold) and is_infinite(answer)):
        return False
    sign = _sign(gold)
    return sign is not None and sign == _sign(answer)


def is_undefined(tree: Tree) -> bool:
    """Whether a tree without symbols has no value, finite or infinite."""
    return not symbols(tree) and (_sign(tree) is None if is_infinite(tree) else values.has_no_value(tree))


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
