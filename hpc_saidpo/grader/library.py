"""Equality of expressions beyond our own grammar, by math-verify: sums, integrals, limits and the like.

Import it only in a process that may be killed: simplification of hostile input may take any time and memory. Text is
read by the grammar of latex2sympy; nothing is evaluated as Python.
"""

from __future__ import annotations

import logging

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from math_verify import verify
from sympy.core.relational import Relational

DIGITS = 30
_NORMALIZATION = NormalizationConfig(  # \frac12 is \frac{1}{2}; everything else is already in plain form
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
)
RELATIVE = sympy.Rational(1, 10**12)
# Exceptions of latex2sympy and sympy on text that they cannot read or relate.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, NotImplementedError, RecursionError, TypeError, ValueError)
logging.getLogger("math_verify").setLevel(logging.ERROR)


def equal(gold: str, answer: str) -> bool | None:
    """Whether two expressions are equal; None if the gold one cannot be read, False if only the answer cannot.

    math-verify rounds to six decimals, which makes all tiny numbers equal. So numbers are compared relatively instead.
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
    return bool(verify(gold_expression, expression, timeout_seconds=None))


def _read(text: str) -> sympy.Basic | None:
    try:
        expression = latex2sympy(text, normalization_config=_NORMALIZATION)
    except Exception as error:  # the grammar raises bare Exception
        if type(error) is not Exception and not isinstance(error, _UNREADABLE):
            raise
        return None
    return expression if isinstance(expression, sympy.Basic) else None


def _same_number(gold: sympy.Basic, answer: sympy.Basic) -> bool:
    try:
        a, b = (sympy.N(x.doit(), DIGITS) for x in (gold, answer))
        return bool(abs(a - b) <= RELATIVE * max(abs(a), abs(b)))
    except _UNREADABLE:  # no number after all
        return False
