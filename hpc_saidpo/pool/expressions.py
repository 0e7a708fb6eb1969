"""The arithmetic that a question asks for: the same for "What is 2 + 7?" and "Calculate (7 + 2)."

Pure. Only questions that consist of instructions and one expression of numbers, one equation in one variable, or one
gcd, lcm or gap have an expression.
"""

from __future__ import annotations

import re

from .canonical import plain
from .spellings import REQUESTS

# Words that only say that a value is requested. No word that requests another form of it: "express", "factor", "round".
INSTRUCTIONS = REQUESTS | {
    "and", "answer", "arithmetic", "as", "equal", "equals", "equation", "expression", "final", "following", "for",
    "in", "is", "it", "math", "me", "multiplication", "number", "numbers", "of", "only", "please", "problem",
    "question", "result", "satisfies", "simplify", "solve", "tell", "that", "the", "these", "this", "to", "value",
    "what", "which", "with", "your",
}  # fmt: skip
# Functions that do not depend on the order of their numbers; `gap` is one of this package's generated arithmetic.
_FUNCTIONS = {"gcd": "gcd", "gcf": "gcd", "hcf": "gcd", "lcm": "lcm", "gap": "gap"}
_NAMES: dict[tuple[str, ...], str] = {
    ("greatest", "common", "divisor"): "gcd", ("greatest", "common", "factor"): "gcd",
    ("highest", "common", "factor"): "gcd", ("least", "common", "multiple"): "lcm",
    ("lowest", "common", "multiple"): "lcm",
}  # fmt: skip
_NAME_WORDS = {word for name in _NAMES for word in name}
_SPELLINGS = {r"\times": "*", r"\cdot": "*", r"\div": "/", "**": "^", "{": "(", "}": ")", "[": "(", "]": ")"}
_SILENT = {"$", r"\left", r"\right", r"\displaystyle", r"\(", r"\)", r"\[", r"\]", r"\,", r"\;", r"\!", r"\ ", "~"}
_FRACTIONS = {r"\frac", r"\dfrac", r"\tfrac"}
_PAUSES = set(".,;:?\"'")
_TOKEN = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?|\.\d+|\\[a-z]+|\\.|[^\W\d_]+|\*\*|\S")
# Of a question with an expression: characters, and open parentheses, which cost recursion.
_LONGEST, _DEEPEST = 300, 40
Value = str | tuple  # a number or variable, or (kind, parts): parts in a fixed order


def expression(text: str) -> str | None:
    """Return the expression that a question asks for; the same for other wordings, parentheses and operand orders.

    Returns:
        None for a question with other words or symbols.
    """
    if len(text) > _LONGEST:
        return None
    runs: list[list[str]] = [[]]
    name_words: list[str] = []
    for raw in _TOKEN.findall(plain(text)):
        token = str(_SPELLINGS.get(raw, raw))
        if token in _SILENT:
            continue
        if token in _PAUSES or token in INSTRUCTIONS:
            runs.append([])
        elif token in _FUNCTIONS or token in _NAME_WORDS:
            name_words.append(token)
            runs.append([])
        elif token[0].isalpha() and len(token) > 1:
            return None
        else:
            runs[-1].append(token.replace(",", ""))
    runs = [run for run in runs if run]
    if name_words:
        return _function(name_words, runs)
    asked = max(runs, key=len, default=[])
    others = [run for run in runs if run is not asked]
    letters = {token for run in runs for token in run if token.isalpha()}
    if any(len(run) > 1 or not run[0].isalpha() for run in others) or len(letters) > 1:
        return None
    return _normal(asked)


def _function(words: list[str], runs: list[list[str]]) -> str | None:
    names = {_FUNCTIONS[word] for word in words if word in _FUNCTIONS}
    rest = tuple(word for word in words if word not in _FUNCTIONS)
    names |= {_NAMES.get(rest, "?")} if rest else set()
    tokens = [token for run in runs for token in run if token not in ("(", ")")]
    numbers = tokens[:-1] if tokens[-1:] == ["="] else tokens
    if len(names) != 1 or "?" in names or len(numbers) < 2 or not all(map(_is_number, numbers)):
        return None
    return f"{names.pop()} {' '.join(sorted(numbers))}"


def _normal(tokens: list[str]) -> str | None:
    """Return the one form of an expression or equation; None if these tokens are none, or have no number."""
    if tokens.count("(") > _DEEPEST or not any(map(_is_number, tokens)):
        return None
    sides: list[list[str]] = [[]]
    for token in tokens:
        if token == "=":
            sides.append([])
        else:
            sides[-1].append("x" if token.isalpha() else token)
    sides = [side for side in sides if side]
    has_variable = any("x" in side for side in sides)
    if len(sides) != 1 + has_variable:
        return None
    try:
        return " = ".join(sorted(repr(_Parser(side).whole()) for side in sides))
    except ValueError:
        return None


def _is_number(token: str) -> bool:
    return token[0].isdigit() or (token[0] == "." and len(token) > 1)


class _Parser:
    """Expression of tokens -> `Value`. Raises ValueError where the tokens are no expression."""

    def __init__(self, tokens: list[str]):
        self._tokens, self._place = [*tokens, ""], 0

    def whole(self) -> Value:
        value = self._sum()
        if self._peek():
            raise ValueError("tokens are left")
        return value

    def _peek(self) -> str:
        return self._tokens[self._place]

    def _take(self) -> str:
        self._place += 1
        return self._tokens[self._place - 1]

    def _sum(self) -> Value:
        parts = [(1, self._product())]
        while self._peek() in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            parts.append((sign, self._product()))
        return _ordered("+", parts)

    def _product(self) -> Value:
        parts = [(1, self._signed())]
        while (
            (token := self._peek()) in ("*", "/", "(") or token in _FRACTIONS or token.isalpha() or token[:1].isdigit()
        ):
            power = -1 if token == "/" else 1
            if token in ("*", "/"):
                self._take()
            elif _is_number(token):
                raise ValueError("two numbers side by side")
            parts.append((power, self._signed()))
        return _ordered("*", parts)

    def _signed(self) -> Value:
        if self._peek() in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            return _ordered("+", [(sign, self._signed())])
        base = self._atom()
        if self._peek() != "^":
            return base
        self._take()
        return ("^", base, self._signed())

    def _atom(self) -> Value:
        token = self._take()
        if token in _FRACTIONS:
            return _ordered("*", [(1, self._atom()), (-1, self._atom())])
        if token == "(":
            value = self._sum()
            if self._take() != ")":
                raise ValueError("a parenthesis is open")
            return value
        if not token or not (_is_number(token) or token.isalpha()):
            raise ValueError(f"{token!r} is no number")
        return token


def _ordered(kind: str, parts: list[tuple[int, Value]]) -> Value:
    """Return a sum or product with its operands in a fixed order, those of inner sums or products among them.

    Args:
        parts: (1 or -1, operand); -1: subtracted, or divided by.
    """
    flat: list[tuple[int, Value]] = []
    for sign, value in parts:
        if isinstance(value, tuple) and value[0] == kind:
            flat += [(sign * inner, operand) for inner, operand in value[1]]
        else:
            flat.append((sign, value))
    if len(flat) == 1 and flat[0][0] == 1:
        return flat[0][1]
    return (kind, tuple(sorted(flat, key=repr)))
