"""The values of expressions: two are equal when they agree at points drawn for their symbols.

This is an identity test in the sense of Schwartz (1980) and Zippel (1979), with 50 digits and more. Nothing is
simplified, and nothing is evaluated as code. A value that is too large to compute is `Beyond`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
from mpmath import mp
from mpmath.libmp import NoConvergence

from .grammar import Unreadable
from .trees import Tree, has_decimal, nodes, symbols

Number = Any  # of mpmath: real (mpf) or complex (mpc)
Point = dict[str, Number]  # a value for each symbol

MAX_EXPONENT = 1e5  # of e; a power beyond it has no value here
DIGITS = 50
N_POINTS = 6


class Beyond(Unreadable):
    """The value is too large, or too close to 0, to compute."""


def same(gold: Tree, answer: Tree) -> bool | None:
    """Whether two trees mean the same; None if it cannot be decided.

    If only one of them has a decimal of six digits or more, it may be the rounded value of the other one.
    """
    names = symbols(gold) | symbols(answer)
    with mp.workdps(_digits(gold, answer)):
        tolerance = mpmath.mpf(10) ** (-6 if has_decimal(gold) != has_decimal(answer) else 20 - mp.dps)
        agreed = 0
        for point in range(N_POINTS if names else 1):
            signed = point >= N_POINTS // 2
            try:
                values = _values(_draw((gold, answer), point, signed), gold, answer)
            except Beyond:
                return _both_beyond(gold, answer)
            if values is None or (signed and any(abs(mpmath.im(v)) > 1e-20 for v in values)):
                continue  # no value there, or another branch of a root or logarithm
            gold_value, answer_value = values
            if not _close(gold_value, answer_value, tolerance):
                return False
            agreed += 1
    return True if agreed >= (2 if names else 1) else None


def _both_beyond(gold: Tree, answer: Tree) -> bool | None:
    """Compare two trees, at least one of them `Beyond`: they differ, unless both are."""
    beyond: list[bool] = []
    for node in (gold, answer):
        try:
            _values(_draw((node,), 0), node)
            beyond.append(False)
        except Beyond:
            beyond.append(True)
    return None if all(beyond) else False


def ratio(gold: Tree, answer: Tree) -> Number | None:
    """The constant gold / answer, which makes `tree = 0` the same equation; None if there is none, or it is unknown."""
    names = symbols(gold) | symbols(answer)
    with mp.workdps(_digits(gold, answer)):
        try:
            pairs = [_values(_draw((gold, answer), point), gold, answer) for point in range(N_POINTS if names else 0)]
        except Beyond:
            return None
        ratios = [g / a for g, a in filter(None, pairs) if g != 0 and a != 0]
        if len(ratios) < 3 or not all(_close(r, ratios[0], mpmath.mpf("1e-12")) for r in ratios):
            return None
        return ratios[0]


def value(node: Tree) -> Number:
    """The value of a tree without symbols.

    Raises:
        Unreadable: it has none.
    """
    with mp.workdps(DIGITS):
        return _value(node, {})


def _values(at: Point, *nodes: Tree) -> list[Number] | None:
    """The values at a point; None if one does not exist.

    Raises:
        Beyond: one cannot be computed.
    """
    try:
        values = [_without_noise(node, at) for node in nodes]
    except Beyond:
        raise
    except (Unreadable, ZeroDivisionError, OverflowError, ValueError, TypeError, NoConvergence):
        return None
    return values if all(mpmath.isfinite(v) for v in values) else None


def _without_noise(node: Tree, at: Point) -> Number:
    """The value of a tree; 0 if it is only the rounding error of terms that cancel out."""
    number = _value(node, at)
    if abs(number) > 1e-15 or number == 0:
        return number
    with mp.workdps(mp.dps + 30):
        again = _value(node, at)
    return number if _close(number, again, mpmath.mpf("1e-6")) else mpmath.mpf(0)


def _digits(*trees: Tree) -> int:
    """Digits that the values need: more than the longest number has."""
    return DIGITS + max(len(node[1]) for tree in trees for node in (*nodes(tree), ("n", "")) if node[0] == "n")


def _close(a: Number, b: Number, tolerance: Number) -> bool:
    return a == b or abs(a - b) <= tolerance * max(abs(a), abs(b))


def _draw(trees: Sequence[Tree], point: int, signed: bool = False) -> Point:
    """A value for each symbol, from its name and the point alone; large ones if rounding to integers must show."""
    names: set[str] = set().union(*map(symbols, trees))
    scale = 100 if any(node[0] in ("lfloor", "lceil") for tree in trees for node in nodes(tree)) else 1
    return {name: scale * _random(f"{point} {name}", signed) for name in names}


def _random(text: str, signed: bool = False) -> Number:
    number = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "big")
    drawn = mpmath.mpf(number) / 2**128
    return (drawn * 6 - 3) if signed else mpmath.mpf("0.35") + drawn * 2


def _value(node: Tree, at: Point) -> Number:
    kind = node[0]
    if kind == "n":
        return mpmath.mpf(node[1])
    if kind == "symbol":
        return at[node[1]]
    return _VALUE_OF[kind](node, at)


def _call(node: Tree, at: Point) -> Number:
    arguments = [str(mpmath.nstr(_value(a, at), 12)) for a in node[2]]
    return at[node[1]] + _random(f"{node[1]}({','.join(arguments)})")


def _power(node: Tree, at: Point) -> Number:
    base, exponent = _value(node[1], at), _value(node[2], at)
    return power(base, exponent)


def power(base: Number, exponent: Number) -> Number:
    """base^exponent.

    Raises:
        Unreadable: it has no value, or one that cannot be computed.
    """
    if base == 0:
        if mpmath.re(exponent) <= 0:
            raise Unreadable("0 to no positive power")
        return mpmath.mpf(0)
    if abs(exponent) > MAX_EXPONENT or abs(exponent * mpmath.log(base)) > MAX_EXPONENT:
        raise Beyond("power out of range")
    return mpmath.power(base, exponent)


def _root(node: Tree, at: Point) -> Number:
    radicand, index = _value(node[1], at), _value(node[2], at)
    if index == 0:
        raise Unreadable("root of index 0")
    if mpmath.im(radicand) == 0 and mpmath.re(radicand) < 0 and index == int(mpmath.re(index)) and int(index) % 2:
        return -mpmath.root(-radicand, int(index)) if abs(index) < 1000 else -power(-radicand, 1 / index)
    return mpmath.sqrt(radicand) if index == 2 else power(radicand, 1 / index)


def _factorial(node: Tree, at: Point) -> Number:
    n = _value(node[1], at)
    if abs(n) > MAX_EXPONENT:
        raise Beyond("factorial out of range")
    return mpmath.factorial(n)


def _binomial(node: Tree, at: Point) -> Number:
    n, k = _value(node[1], at), _value(node[2], at)
    if max(abs(n), abs(k)) > MAX_EXPONENT:
        raise Beyond("binomial out of range")
    return mpmath.binomial(n, k)


def _exponential(x: Number) -> Number:
    if abs(x) > MAX_EXPONENT:
        raise Beyond("power out of range")
    return mpmath.exp(x)


def _bounded(function: Callable[[Number], Number]) -> Callable[[Number], Number]:
    """A function with a bounded argument: sin(10^100000) would need 10^5 digits of pi."""

    def call(x: Number) -> Number:
        if abs(x) > 1e30:
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


def _function(node: Tree, at: Point) -> Number:
    name, x = node[1], _value(node[2], at)
    if len(node) > 3:
        return mpmath.log(x) / mpmath.log(_value(node[3], at))
    if name.startswith("1/"):
        return 1 / _FUNCTION_OF[name[2:]](x)
    return _FUNCTION_OF[name](x)


def _repeating(node: Tree, at: Point) -> Number:
    whole, fraction = node[1].split(".")
    again = node[2]
    if not again.isdigit():
        raise Unreadable("repeating decimal")
    shift = mpmath.mpf(10) ** len(fraction)
    return mpmath.mpf(f"{whole}.{fraction or 0}") + mpmath.mpf(int(again)) / (10 ** len(again) - 1) / shift


_VALUE_OF = {
    "+": lambda node, at: mpmath.fsum(_value(child, at) for child in node[1:]),
    "-": lambda node, at: -_value(node[1], at),
    "*": lambda node, at: _value(node[1], at) * _value(node[2], at),
    "/": lambda node, at: _value(node[1], at) / _value(node[2], at),
    "^": _power,
    "!": _factorial,
    "root": _root,
    "abs": lambda node, at: abs(_value(node[1], at)),
    "lfloor": lambda node, at: mpmath.floor(_value(node[1], at)),
    "lceil": lambda node, at: mpmath.ceil(_value(node[1], at)),
    "binom": _binomial,
    "fn": _function,
    "call": _call,
    "repeating": _repeating,
    "degree": lambda node, at: mpmath.mpf(1),
    "pi": lambda node, at: +mpmath.pi,
    "e": lambda node, at: +mpmath.e,
    "i": lambda node, at: mpmath.mpc(0, 1),
}
