"""The values of expressions: two are equal when they agree at points drawn for their symbols.

This is an identity test in the sense of Schwartz (1980) and Zippel (1979), with 50 digits and more. Nothing is
simplified, and nothing is evaluated as code. A value that is too large to compute is `Beyond`.

What has no value (1/0, 0^0, log 0) equals nothing. Infinity is no value here; see `infinity`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import mpmath
from mpmath import mp
from mpmath.libmp import NoConvergence

from . import functions
from .functions import MAX_EXPONENT, Beyond, Number, Undefined, Unreadable, power
from .trees import Tree, has_decimal, nodes, symbols

Point = dict[str, Number]  # a value for each symbol

DIGITS = 50
N_POINTS = 6


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
            if values is None and not names:
                return False if has_no_value(gold) or has_no_value(answer) else None
            if values is None or (signed and any(abs(mpmath.im(v)) > 1e-20 for v in values)):
                continue  # no value there, or another branch of a root or logarithm
            gold_value, answer_value = values
            if not _close(gold_value, answer_value, tolerance):
                return False
            agreed += 1
    return True if agreed >= (2 if names else 1) else None


def has_no_value(node: Tree) -> bool:
    """Whether a tree without symbols is undefined, as 1/0 is."""
    try:
        return not mpmath.isfinite(_without_noise(node, {}))
    except (Undefined, ZeroDivisionError):
        return True
    except (Unreadable, OverflowError, ValueError, TypeError, NoConvergence):
        return False


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


def _not_noise(node: Tree, at: Point) -> Number:
    """The value of a tree that must not be 0, as a divisor; 0 if it is only a rounding error."""
    number = _value(node, at)
    return _without_noise(node, at) if abs(number) < 1e-15 else number


def _quotient(node: Tree, at: Point) -> Number:
    divisor = _not_noise(node[2], at)
    if divisor == 0:
        raise Undefined("division by 0")
    return _value(node[1], at) / divisor


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
    return power(_not_noise(node[1], at), _value(node[2], at))


def _root(node: Tree, at: Point) -> Number:
    radicand, index = _value(node[1], at), _value(node[2], at)
    if index == 0:
        raise Undefined("root of index 0")
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


def _function(node: Tree, at: Point) -> Number:
    _, name, x, *base = node
    return functions.apply(name, _value(x, at), *(_value(number, at) for number in base))


def _infinity(node: Tree, at: Point) -> Number:
    raise Undefined("infinity is no number")


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
    "/": _quotient,
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
    "infty": _infinity,
    "pi": lambda node, at: +mpmath.pi,
    "e": lambda node, at: +mpmath.e,
    "i": lambda node, at: mpmath.mpc(0, 1),
}
