"""Equality of expressions beyond our own grammar, by math-verify: sums, integrals, limits and the like.

Import it only in a process that may be killed: simplification of hostile input may take any time and memory. Text is
read by the grammar of latex2sympy; nothing is evaluated as Python.
"""

from __future__ import annotations

import logging
import re

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from math_verify import verify
from sympy.core.relational import Relational

DIGITS = 30
_NORMALIZATION = NormalizationConfig(  # \frac12 is \frac{1}{2}; everything else is already in plain form
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
)
_ONE_SIDED = re.compile(r"(\\(?:to|rightarrow)\s*[^{}^\\]*?)\^\s*\{?\s*([+-])\s*\}?(?=\s*\})")
RELATIVE = sympy.Rational(1, 10**12)
# Exceptions of latex2sympy and sympy on text that they cannot read or relate.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, NotImplementedError, RecursionError, TypeError, ValueError)
logging.getLogger("math_verify").setLevel(logging.ERROR)


def equal(gold: str, answer: str) -> bool | None:
    """Whether two expressions are equal; None if the gold one cannot be read or has no value.

    False if only the answer cannot be read or has no value. math-verify rounds to six decimals, which makes all tiny
    numbers equal. So numbers are compared relatively instead.
    """
    gold_expression = _read(gold)
    if gold_expression is None:
        return None
    expression = _read(answer)
    if expression is None or isinstance(gold_expression, Relational) or isinstance(expression, Relational):
        return False
    if not gold_expression.free_symbols and not expression.free_symbols:
        return _same_number(gold_expression, expression)
    if gold_expression.free_symbols != expression.free_symbols:
        return False
    if any(side.has(sympy.nan, sympy.zoo) for side in (gold_expression, expression)):
        return False
    return bool(verify(gold_expression, expression, timeout_seconds=None))


def _read(text: str) -> sympy.Basic | None:
    one_sided = _ONE_SIDED.search(text)
    try:
        expression = latex2sympy(_ONE_SIDED.sub(r"\1", text), normalization_config=_NORMALIZATION)
    except Exception as error:  # the grammar raises bare Exception
        if type(error) is not Exception and not isinstance(error, _UNREADABLE):
            raise
        return None
    if not isinstance(expression, sympy.Basic):
        return None
    return _with_sides(expression, one_sided.group(2) if one_sided else "+-")


def _with_sides(expression: sympy.Basic, side: str) -> sympy.Basic:
    """The expression with its limits taken from a side: "+", "-", or "+-" for both, which must agree.

    latex2sympy takes every limit at a finite point from above.
    """
    limits = [limit for limit in expression.atoms(sympy.Limit) if limit.args[2].is_finite]
    return expression.xreplace({limit: sympy.Limit(*limit.args[:3], dir=side) for limit in limits})


def _same_number(gold: sympy.Basic, answer: sympy.Basic) -> bool | None:
    a = _number(gold)
    if a is None:
        return None
    b = _number(answer)
    if b is None or not (a.is_finite and b.is_finite):
        return b is not None and a == b  # infinity equals infinity of the same sign
    return bool(abs(a - b) <= RELATIVE * max(abs(a), abs(b)))


def _number(expression: sympy.Basic) -> sympy.Expr | None:
    """The value to DIGITS digits, or infinity with a sign; None if there is no such value."""
    try:
        parts = expression.atoms(sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)
        done = {part: part.doit() for part in parts if not part.free_symbols}
        value = expression.xreplace(done).doit()
        endless = [part for part in value.atoms(sympy.Sum, sympy.Product) if part.has(sympy.oo, -sympy.oo)]
        if not all(part.is_convergent() is sympy.true for part in endless):
            return None
        value = sympy.N(value, DIGITS)
    except _UNREADABLE:  # no number after all; a limit or a sum that does not exist
        return None
    if value in (sympy.oo, -sympy.oo):
        return value
    parts = [part for part in done.values() if isinstance(part, sympy.Basic)]
    if any(part.is_infinite or part.has(sympy.nan, sympy.zoo) for part in parts):  # 1 / infinity is no number
        return None
    return value if isinstance(value, sympy.Expr) and value.is_number and value.is_finite else None
