"""The grammar of a mathematical expression in LaTeX: tokens -> a small tree.

Some expressions are outside of it (`Unreadable`): sums, integrals and limits among others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .functions import FUNCTIONS, Unreadable
from .trees import Tree

MAX_TOKENS = 600
MAX_DEPTH = 60
_FUNCTION_LETTERS = frozenset("fghFGHPQ")
_ACCENTS = frozenset(
    "\\" + name
    for name in re.findall(
        r"\w+",
        "vec hat bar overline tilde dot ddot underline mathbb mathcal overrightarrow mathfrak widehat widetilde",
    )
)
_SYMBOLS = frozenset(
    "\\" + name
    for name in re.findall(
        r"\w+",
        "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
        "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell partial angle triangle nabla "
        "prime emptyset ldots",
    )
)
_CONSTANTS = frozenset(("\\pi", "\\degree", "\\infty"))
_CLOSERS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}


class _Parser:
    """Precedence climbing over tokens; nodes are tuples (kind, ...)."""

    def __init__(self, tokens: list[str]):
        if len(tokens) > MAX_TOKENS:
            raise Unreadable("too long")
        self.tokens, self.at, self.depth, self.bars = tokens, 0, 0, 0

    def whole(self) -> Tree:
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

    def expect(self, token: str) -> None:
        if self.next() != token:
            raise Unreadable(f"{token} expected")

    def sum(self) -> Tree:
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

    def product(self, signed: bool = False) -> Tree:
        if signed and self.peek() in ("+", "-"):
            negative = self.next() == "-"
            node = self.product(signed=True)
            return ("-", node) if negative else node
        node = last = self.factor()
        while True:
            if self.peek() == "*":
                self.next()
                last = self.signed_factor()
                node = ("*", node, last)
            elif self.peek() == "/":
                self.next()
                last = self.signed_factor()
                node = ("/", node, last)
            elif self.starts_factor():
                if last[0] == "n" and self.peek()[0].isdigit():
                    raise Unreadable("two numbers side by side")
                last = self.factor()
                node = ("*", node, last)
            else:
                return node

    def signed_factor(self) -> Tree:
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
            or token in _CONSTANTS
        )

    def factor(self) -> Tree:
        """An atom with its powers and factorials."""
        node = self.atom()
        while self.peek() in ("^", "!"):
            node = ("!", node) if self.next() == "!" else ("^", node, self.argument())
        return node

    def argument(self) -> Tree:
        """The argument of a command or ^: a group, one digit, one letter, or a command with its arguments."""
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

    def group(self) -> Tree:
        opener = self.next()
        bars, self.bars = self.bars, (self.bars + 1 if opener == "|" else 0)
        node = self.sum()
        self.expect(_CLOSERS[opener])
        self.bars = bars
        return node

    def atom(self) -> Tree:
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
        if token in _CONSTANTS:
            return (token[1:],)
        if token in _ACCENTS:
            return self.symbol(token[1:] + "{" + "".join(self.raw_argument()) + "}")
        if token in _SYMBOLS:
            return self.symbol(token[1:])
        if token.isalpha() and len(token) == 1:
            return self.letter(token)
        raise Unreadable(f"unknown {token}")

    def number(self) -> Tree:
        token = self.next()
        if self.peek() == "\\overline" and "." in token:
            self.next()
            return ("repeating", token, "".join(self.raw_argument()))
        value = ("n", token)
        if self.peek() == "\\frac" and token.isdigit():
            return self.mixed(value)
        return value

    def mixed(self, whole: Tree) -> Tree:
        start = self.at
        self.next()
        top, bottom = self.argument(), self.argument()
        if top[0] == bottom[0] == "n" and top[1].isdigit() and bottom[1].isdigit() and int(top[1]) < int(bottom[1]):
            return ("+", whole, ("/", top, bottom))
        self.at = start
        return whole

    def root(self) -> Tree:
        index = ("n", "2")
        if self.peek() == "[":
            index = self.group()
        return ("root", self.argument(), index)

    def letter(self, name: str) -> Tree:
        if name == "e" and self.peek() != "_":
            return ("e",)
        if name == "i" and self.peek() != "_":
            return ("i",)
        if name == "C" and self.peek() == "_":
            return self.combinations()
        return self.symbol(name)

    def combinations(self) -> Tree:
        """C_{n}^{k}, or a symbol with an index."""
        start = self.at
        self.next()
        n = self.argument()
        if self.peek() == "^":
            self.next()
            return ("binom", n, self.argument())
        self.at = start
        return self.symbol("C")

    def symbol(self, name: str) -> Tree:
        while self.peek() in ("_", "'"):
            name += self.next()
            if name[-1] == "_":
                name += "".join(self.raw_argument())
        if self.peek() == "(" and ((name[0] in _FUNCTION_LETTERS and len(name) < 4) or self.peek(1) == "0"):
            return ("call", name, self.call_argument())
        return ("symbol", name)

    def call_argument(self) -> tuple[Tree, ...]:
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

    def function(self, name: str) -> Tree:
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
        argument = in_radians(argument)
        node = ("fn", name, argument, base) if base else ("fn", name, argument)
        return node if power is None else ("^", node, power)

    def bare_argument(self) -> Tree:
        """The argument of a function without brackets, as in sin 2x cos y: the product up to the next function."""
        if self.peek() in ("+", "-"):
            return ("-", self.bare_argument()) if self.next() == "-" else self.bare_argument()
        node = self.factor()
        while self.starts_factor() and self.peek() not in FUNCTIONS and self.peek() not in ("(", "[", "{"):
            node = ("*", node, self.factor())
        return node


def in_radians(node: Tree) -> Tree:
    """The argument of a function, in radians: a degree in it is an angle, elsewhere it is the unit of the answer."""
    if node == ("degree",):
        return ("/", ("pi",), ("n", "180"))
    return tuple(in_radians(child) if isinstance(child, tuple) else child for child in node)


def parse(tokens: Sequence[str]) -> Tree:
    """The tree of an expression.

    Raises:
        Unreadable: it is outside the grammar.
    """
    return _Parser(list(tokens)).whole()
