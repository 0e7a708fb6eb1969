"""The values of expressions: two are equal when they agree at points drawn for their symbols.

This is an identity test in the sense of Schwartz (1980) and Zippel (1979), with 50 digits and more. Nothing is
simplified, nothing is evaluated as code, and what is too large to be reckoned with is `Beyond`.
"""

from __future__ import annotations

import hashlib

import mpmath
from mpmath import mp

from .grammar import Unreadable, has_decimal, nodes, symbols

MAX_EXPONENT = 1e5  # of e; a power beyond it has no value here
DIGITS = 50
N_POINTS = 6


class Beyond(Unreadable):
    """It has a value, but one too large, or too close to 0, to be reckoned with."""


def same(gold: tuple, answer: tuple) -> bool | None:
    """Whether two trees mean the same; None when that cannot be told.

    A decimal of six digits or more in one of them only may be the other one's value, rounded.
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
            if not _close(*values, tolerance):
                return False
            agreed += 1
    return True if agreed >= (2 if names else 1) else None


def _both_beyond(gold: tuple, answer: tuple) -> bool | None:
    """Of two trees, one at least beyond reckoning: different, unless both are."""
    beyond = []
    for node in (gold, answer):
        try:
            _values(_draw((node,), 0), node)
            beyond.append(False)
        except Beyond:
            beyond.append(True)
    return None if all(beyond) else False


def ratio(gold: tuple, answer: tuple):
    """The constant that `gold` is of `answer`: the same equation `tree = 0`. None when there is none, or unknown."""
    names = symbols(gold) | symbols(answer)
    with mp.workdps(_digits(gold, answer)):
        try:
            found = [_values(_draw((gold, answer), point), gold, answer) for point in range(N_POINTS if names else 0)]
        except Beyond:
            return None
        ratios = [g / a for g, a in filter(None, found) if g != 0 and a != 0]
        if len(ratios) < 3 or not all(_close(r, ratios[0], mpmath.mpf("1e-12")) for r in ratios):
            return None
        return ratios[0]


def value(node: tuple):
    """The value of a tree without symbols. Raises Unreadable where it has none."""
    with mp.workdps(DIGITS):
        return _value(node, {})


def _values(at: dict, *nodes):
    """The values at a point, or None where one does not exist.

    Raises:
        Beyond: one is beyond reckoning.
    """
    try:
        values = [_without_noise(node, at) for node in nodes]
    except Beyond:
        raise
    except (Unreadable, ZeroDivisionError, OverflowError, ValueError, TypeError, mpmath.libmp.NoConvergence):
        return None
    return values if all(mpmath.isfinite(v) for v in values) else None


def _without_noise(node, at):
    """The value of a tree; 0 where what is left is the rounding of terms that cancel out."""
    found = _value(node, at)
    if abs(found) > 1e-15 or found == 0:
        return found
    with mp.workdps(mp.dps + 30):
        again = _value(node, at)
    return found if _close(found, again, mpmath.mpf("1e-6")) else mpmath.mpf(0)


def _digits(*trees) -> int:
    """How many digits the values need: more than the longest number has."""
    return DIGITS + max(len(node[1]) for tree in trees for node in (*nodes(tree), ("n", "")) if node[0] == "n")


def _close(a, b, tolerance) -> bool:
    return a == b or abs(a - b) <= tolerance * max(abs(a), abs(b))


def _draw(trees, point: int, signed: bool = False) -> dict:
    """A value for each symbol that depends on its name and the point only; large ones where steps must show."""
    names = set().union(*map(symbols, trees))
    scale = 100 if any(node[0] in ("lfloor", "lceil") for tree in trees for node in nodes(tree)) else 1
    return {name: scale * _random(f"{point} {name}", signed) for name in names}


def _random(text: str, signed: bool = False):
    number = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "big")
    drawn = mpmath.mpf(number) / 2**128
    return (drawn * 6 - 3) if signed else mpmath.mpf("0.35") + drawn * 2


def _value(node, at):
    kind = node[0]
    if kind == "n":
        return mpmath.mpf(node[1])
    if kind == "symbol":
        return at[node[1]]
    return _VALUE_OF[kind](node, at)


def _call(node, at):
    arguments = [mpmath.nstr(_value(a, at), 12) for a in node[2]]
    return at[node[1]] + _random(f"{node[1]}({','.join(arguments)})")


def _power(node, at):
    base, exponent = _value(node[1], at), _value(node[2], at)
    return power(base, exponent)


def power(base, exponent):
    """base^exponent. Raises Unreadable where it is beyond reckoning."""
    if base == 0:
        if mpmath.re(exponent) <= 0:
            raise Unreadable("0 to no positive power")
        return mpmath.mpf(0)
    if abs(exponent) > MAX_EXPONENT or abs(exponent * mpmath.log(base)) > MAX_EXPONENT:
        raise Beyond("power out of range")
    return mpmath.power(base, exponent)


def _root(node, at):
    radicand, index = _value(node[1], at), _value(node[2], at)
    if index == 0:
        raise Unreadable("root of index 0")
    if mpmath.im(radicand) == 0 and mpmath.re(radicand) < 0 and index == int(mpmath.re(index)) and int(index) % 2:
        return -mpmath.root(-radicand, int(index)) if abs(index) < 1000 else -power(-radicand, 1 / index)
    return mpmath.sqrt(radicand) if index == 2 else power(radicand, 1 / index)


def _factorial(node, at):
    n = _value(node[1], at)
    if abs(n) > MAX_EXPONENT:
        raise Beyond("factorial out of range")
    return mpmath.factorial(n)


def _binomial(node, at):
    n, k = _value(node[1], at), _value(node[2], at)
    if max(abs(n), abs(k)) > MAX_EXPONENT:
        raise Beyond("binomial out of range")
    return mpmath.binomial(n, k)


def _exponential(x):
    if abs(x) > MAX_EXPONENT:
        raise Beyond("power out of range")
    return mpmath.exp(x)


def _bounded(function):
    """A function whose argument must be reasonable: 10^5 digits of pi make sin(10^100000)."""

    def call(x):
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
    **{
        name: _bounded(getattr(mpmath, name))
        for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth")
    },
    "arcsin": mpmath.asin,
    "arccos": mpmath.acos,
    "arctan": mpmath.atan,
    "arcsinh": mpmath.asinh,
    "arccosh": mpmath.acosh,
    "arctanh": mpmath.atanh,
}


def _function(node, at):
    name, x = node[1], _value(node[2], at)
    if len(node) > 3:
        return mpmath.log(x) / mpmath.log(_value(node[3], at))
    if name.startswith("1/"):
        return 1 / _FUNCTION_OF[name[2:]](x)
    return _FUNCTION_OF[name](x)


def _repeating(node, at):
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
