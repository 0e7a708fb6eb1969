"""Families of values, one for each integer: pi/2 + k pi and -pi/2 + k pi are the same family."""

from __future__ import annotations

import mpmath
from mpmath.libmp import NoConvergence

from . import values
from .functions import Unreadable
from .trees import Tree, replaced, symbols

_TOLERANCE = 1e-20


def same_family(gold: Tree, answer: Tree) -> bool:
    """Whether two trees, linear in one symbol each, take the same values over all integers."""
    gold_line, line = _line(gold), _line(answer)
    if gold_line is None or line is None:
        return False
    (start, step), (other_start, other_step) = gold_line, line
    shift = (other_start - start) / step
    return abs(abs(step) - abs(other_step)) < _TOLERANCE and abs(shift - mpmath.nint(shift.real)) < _TOLERANCE


def _line(tree: Tree) -> tuple[values.Number, values.Number] | None:
    """(a, b) of a + b k, for b other than 0; None for any other tree."""
    names = symbols(tree)
    if len(names) != 1:
        return None
    (name,) = names
    try:
        at = [values.value(replaced(tree, name, ("n", number))) for number in ("0", "1", "2")]
    except (Unreadable, ArithmeticError, ValueError, TypeError, NoConvergence):
        return None
    step = at[1] - at[0]
    return (at[0], step) if abs(step) > _TOLERANCE and abs(at[2] - at[1] - step) < _TOLERANCE else None
