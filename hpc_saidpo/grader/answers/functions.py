"""Powers and elementary functions of numbers, and where they have no value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath

Number = Any  # of mpmath: real (mpf) or complex (mpc)
MAX_EXPONENT = 1e5  # of e; a power beyond it has no value here
MAX_ARGUMENT = 1e30  # of sin and the like
NOISE = 1e-30  # a result so small is a rounding error of 0
FUNCTION_NAMES = (
    "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh", "sinh", "cosh", "tanh", "coth", "sin", "cos", "tan",
    "cot", "sec", "csc", "log", "ln", "lg", "exp", "sqrt",
)  # fmt: skip
FUNCTIONS = frozenset("\\" + name for name in FUNCTION_NAMES) - {"\\sqrt"}


class Unreadable(Exception):
    """The expression is outside the grammar, or it has no value."""


class Undefined(Unreadable):
    """The expression has no value: 1/0, 0^0, log 0, infinity - infinity."""


class Beyond(Unreadable):
    """The value is too large, or too close to 0, to compute."""


def power(base: Number, exponent: Number) -> Number:
    """base^exponent.

    Raises:
        Undefined: it has no value.
        Beyond: it cannot be computed.
    """
    if base == 0:
        if mpmath.re(exponent) <= 0:
            raise Undefined("0 to no positive power")
        return mpmath.mpf(0)
    if abs(exponent) > MAX_EXPONENT or abs(exponent * mpmath.log(base)) > MAX_EXPONENT:
        raise Beyond("power out of range")
    return mpmath.power(base, exponent)


def apply(name: str, x: Number, base: Number | None = None) -> Number:
    """Return the value of a function by its name in LaTeX. "1/name": its reciprocal; `base`: of a logarithm.

    Raises:
        Undefined: it has no value there: log 0, tan 90 degrees.
        Unreadable: it cannot be computed.
    """
    if base is not None:
        result = mpmath.log(x) / mpmath.log(base)
    elif name in _POLES and abs(x) <= MAX_ARGUMENT and abs(_POLES[name](x)) < NOISE:
        raise Undefined(f"a pole of {name}")
    elif name.startswith("1/"):
        result = 1 / _FUNCTION_OF[name[2:]](x)
    else:
        result = _FUNCTION_OF[name](x)
    if not mpmath.isfinite(result):
        raise Undefined(f"{name} has no value there")
    return result


def _exponential(x: Number) -> Number:
    if abs(x) > MAX_EXPONENT:
        raise Beyond("power out of range")
    return mpmath.exp(x)


def _bounded(function: Callable[[Number], Number]) -> Callable[[Number], Number]:
    """A function with a bounded argument: sin(10^100000) would need 10^5 digits of pi."""

    def call(x: Number) -> Number:
        if abs(x) > MAX_ARGUMENT:
            raise Unreadable("argument out of range")
        return function(x)

    return call


_BOUNDED = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth")
_FUNCTION_OF = {
    "exp": _exponential,
    "ln": mpmath.log,
    "log": mpmath.log10,
    "lg": mpmath.log10,
    **{name: _bounded(getattr(mpmath, name)) for name in _BOUNDED},
    "arcsin": mpmath.asin,
    "arccos": mpmath.acos,
    "arctan": mpmath.atan,
    "arcsinh": mpmath.asinh,
    "arccosh": mpmath.acosh,
    "arctanh": mpmath.atanh,
}


_POLES = {"tan": mpmath.cos, "sec": mpmath.cos, "cot": mpmath.sin, "csc": mpmath.sin}  # where these are 0
