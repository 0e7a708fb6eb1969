"""A mathematical expression in LaTeX: read into a small tree, and compared by its values at random points.

Two expressions are equal when they agree at points drawn for their symbols (an identity test in the sense of Schwartz
1980 and Zippel 1979). Nothing is simplified and nothing is evaluated as code; what this grammar does not know is
`Unreadable`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import mpmath
from mpmath import mp

from .latex import FUNCTIONS

MAX_TOKENS = 600
MAX_DEPTH = 60
MAX_EXPONENT = 1e5  # of e; a power beyond it has no value here
DIGITS = 50
N_POINTS = 6
_FUNCTION_LETTERS = frozenset("fghFGHPQ")
_ACCENTS = frozenset(f"\\{name}" for name in ("vec", "hat", "bar", "overline", "tilde", "dot", "ddot", "underline", "mathbb",
                                               "mathcal", "overrightarrow", "mathfrak", "widehat", "widetilde"))  # fmt: skip
_SYMBOLS = frozenset(
    "\\" + name
    for name in [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Pi",
        "Sigma",
        "Upsilon",
        "Phi",
        "Psi",
        "Omega",
        "hbar",
        "ell",
        "infty",
        "partial",
        "angle",
        "triangle",
        "nabla",
        "prime",
        "emptyset",
        "ldots",
    ]
)
_CLOSERS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}


class Unreadable(Exception):
    """The grammar does not know this, or it has no value."""


class Beyond(Unreadable):
    """It has a value, but one too large, or too close to 0, to be reckoned with."""


class _Parser:
    """Precedence climbing over tokens; nodes are tuples (kind, ...)."""

    def __init__(self, tokens: list[str]):
        if len(tokens) > MAX_TOKENS:
            raise Unreadable("too long")
        self.tokens, self.at, self.depth, self.bars = tokens, 0, 0, 0

    def whole(self):
        node = self.sum()
        if self.at < len(self.tokens):
            raise Unreadable(f"unexpected {self.peek()}")
        return node

    def peek(self, ahead: int = 0) -> str:
        position = self.at + ahead
        return self.tokens[position] if position < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        if not token:
            raise Unreadable("ends too early")
        self.at += 1
        return token

    def expect(self, token: str):
        if self.next() != token:
            raise Unreadable(f"{token} expected")

    def sum(self):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        terms = [self.product(signed=True)]
        while self.peek() in ("+", "-"):
            negative = self.next() == "-"
            term = self.product(signed=True)
            terms.append(("-", term) if negative else term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def product(self, signed: bool = False):
        if signed and self.peek() in ("+", "-"):
            negative = self.next() == "-"
            node = self.product(signed=True)
            return ("-", node) if negative else node
        node = self.factor()
        while True:
            if self.peek() == "*":
                self.next()
                node = ("*", node, self.signed_factor())
            elif self.peek() == "/":
                self.next()
                node = ("/", node, self.signed_factor())
            elif self.starts_factor():
                node = ("*", node, self.factor())
            else:
                return node

    def signed_factor(self):
        if self.peek() in ("+", "-"):
            return ("-", self.signed_factor()) if self.next() == "-" else self.signed_factor()
        return self.factor()

    def starts_factor(self) -> bool:
        token = self.peek()
        if token == "|":
            return self.bars == 0
        return bool(token) and (
            token[0].isalnum()
            or token[0] == "."
            or token in ("(", "[", "{", "\\lfloor", "\\lceil", "\\frac", "\\sqrt", "\\binom")
            or token in FUNCTIONS
            or token in _ACCENTS
            or token in _SYMBOLS
            or token in ("\\pi", "\\degree")
        )

    def factor(self):
        """An atom with its powers and factorials."""
        node = self.atom()
        while self.peek() in ("^", "!"):
            if self.next() == "!":
                node = ("!", node)
            else:
                node = ("^", node, self.argument())
        return node

    def argument(self):
        """What a command or ^ applies to: a group, one digit, one letter, or a command with its own arguments."""
        token = self.peek()
        if token in ("+", "-"):
            self.next()
            node = self.argument()
            return ("-", node) if token == "-" else node
        if token == "{":
            return self.group()
        if re.fullmatch(r"\d{2,}", token, re.ASCII):  # \frac12 is 1/2
            self.tokens[self.at : self.at + 1] = list(token)
        return self.atom()

    def group(self):
        opener = self.next()
        bars, self.bars = self.bars, (self.bars + 1 if opener == "|" else 0)
        node = self.sum()
        self.expect(_CLOSERS[opener])
        self.bars = bars
        return node

    def atom(self):
        token = self.peek()
        if not token:
            raise Unreadable("ends too early")
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return self.number()
        if token in ("(", "[", "{"):
            return self.group()
        if token == "|":
            return ("abs", self.group())
        if token in ("\\lfloor", "\\lceil"):
            return (token[1:], self.group())
        self.next()
        if token in ("\\frac", "\\binom"):
            return ("/" if token == "\\frac" else "binom", self.argument(), self.argument())
        if token == "\\sqrt":
            return self.root()
        if token in FUNCTIONS:
            return self.function(token[1:])
        if token in ("\\pi", "\\degree"):
            return (token[1:],)
        if token in _ACCENTS:
            return self.symbol(token[1:] + "{" + "".join(self.raw_argument()) + "}")
        if token in _SYMBOLS:
            return self.symbol(token[1:])
        if token.isalpha() and len(token) == 1:
            return self.letter(token)
        raise Unreadable(f"unknown {token}")

    def number(self):
        token = self.next()
        if self.peek() == "\\overline" and "." in token:
            self.next()
            return ("repeating", token, "".join(self.raw_argument()))
        value = ("n", token)
        if self.peek() == "\\frac" and token.isdigit():
            return self.mixed(value)
        return value

    def mixed(self, whole):
        start = self.at
        self.next()
        top, bottom = self.argument(), self.argument()
        if top[0] == bottom[0] == "n" and top[1].isdigit() and bottom[1].isdigit() and int(top[1]) < int(bottom[1]):
            return ("+", whole, ("/", top, bottom))
        self.at = start
        return whole

    def root(self):
        index = ("n", "2")
        if self.peek() == "[":
            index = self.group()
        return ("root", self.argument(), index)

    def letter(self, name: str):
        if name == "e" and self.peek() != "_":
            return ("e",)
        if name == "i" and self.peek() != "_":
            return ("i",)
        if name == "C" and self.peek() == "_":
            return self.combinations()
        return self.symbol(name)

    def combinations(self):
        """C_{n}^{k}, or a symbol with an index."""
        start = self.at
        self.next()
        n = self.argument()
        if self.peek() == "^":
            self.next()
            return ("binom", n, self.argument())
        self.at = start
        return self.symbol("C")

    def symbol(self, name: str):
        while self.peek() in ("_", "'"):
            name += self.next()
            if name[-1] == "_":
                name += "".join(self.raw_argument())
        if self.peek() == "(" and ((name[0] in _FUNCTION_LETTERS and len(name) < 4) or self.peek(1) == "0"):
            return ("call", name, self.call_argument())
        return ("symbol", name)

    def call_argument(self):
        self.next()
        arguments = [self.sum()]
        while self.peek() == ",":
            self.next()
            arguments.append(self.sum())
        self.expect(")")
        return tuple(arguments)

    def raw_argument(self) -> list[str]:
        """Tokens of a group, or one token, as a name."""
        if self.peek() != "{":
            return [self.next()]
        depth, content = 0, []
        while True:
            token = self.next()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return [re.sub(r"^\\text\{|\}$", "", t).strip() if t.startswith("\\text") else t for t in content[1:]]
            content.append(token)

    def function(self, name: str):
        base, power = None, None
        while self.peek() in ("_", "^"):
            if self.next() == "_":
                base = self.argument()
            else:
                power = self.argument()
        inverse = power == ("-", ("n", "1"))
        if self.peek() in ("(", "{", "["):
            argument = self.group()
            if self.peek() == "^" and power is None:
                self.next()
                power = self.argument()
        else:
            argument = self.bare_argument()
        if inverse:
            name, power = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}.get(name, "1/" + name), None
        argument = _in_radians(argument)
        node = ("fn", name, argument, base) if base else ("fn", name, argument)
        return node if power is None else ("^", node, power)

    def bare_argument(self):
        """sin 2x cos y: the product of what follows, up to the next function."""
        if self.peek() in ("+", "-"):
            return ("-", self.bare_argument()) if self.next() == "-" else self.bare_argument()
        node = self.factor()
        while self.starts_factor() and self.peek() not in FUNCTIONS and self.peek() not in ("(", "[", "{"):
            node = ("*", node, self.factor())
        return node


def _in_radians(node):
    """The argument of a function: there a degree is an angle, elsewhere the unit of the answer."""
    if node == ("degree",):
        return ("/", ("pi",), ("n", "180"))
    return tuple(_in_radians(child) if isinstance(child, tuple) else child for child in node)


def parse(tokens: list[str]) -> tuple:
    """The tree of an expression.

    Raises:
        Unreadable: the grammar does not know it.
    """
    return _Parser(list(tokens)).whole()


def nodes(tree: tuple) -> Iterator[tuple]:
    """Every node of a tree."""
    yield tree
    for child in tree[1:]:
        if isinstance(child, tuple):
            for own in child if child and isinstance(child[0], tuple) else (child,):
                yield from nodes(own)


def symbols(tree: tuple) -> set[str]:
    """Names of the free symbols and unknown functions of a tree."""
    return {node[1] for node in nodes(tree) if node[0] in ("symbol", "call")}


def has_decimal(tree: tuple) -> bool:
    """Whether a decimal of six digits or more occurs, which may be a rounded value."""
    return any(n[0] == "n" and "." in n[1] and len(n[1].replace(".", "").lstrip("0")) >= 6 for n in nodes(tree))


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
