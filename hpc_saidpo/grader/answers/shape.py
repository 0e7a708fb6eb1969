"""The outer form of an answer: list, tuple, interval, union, set, relation, matrix, or one expression."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

RELATIONS = frozenset(("=", "<", ">", "\\le", "\\ge", "\\neq", "\\approx", "\\in", "\\equiv", "\\sim", "\\rightarrow"))
_FLIP = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
ORDER = frozenset(_FLIP)
_OPEN = frozenset(("(", "[", "{", "\\{", "\\begin"))
_CLOSE = frozenset((")", "]", "}", "\\}", "\\end"))
_MATRICES = ("pmatrix", "bmatrix", "matrix", "vmatrix", "Bmatrix", "smallmatrix", "array", "cases", "aligned")
MAX_SIGNS = 4  # of +- in one answer: 16 readings


Tokens = tuple[str, ...]


@dataclass(frozen=True)
class Expression:
    """A leaf: one mathematical expression."""

    tokens: Tokens


@dataclass(frozen=True)
class Several:
    """Items side by side: 1, 2 and 3. `by` is the weakest separator: ";", "," or a word."""

    items: tuple[Shape, ...]
    by: str


@dataclass(frozen=True)
class Group:
    """Items in brackets, in their order: a tuple, an interval, or a set."""

    opener: str
    items: tuple[Shape, ...]
    closer: str


@dataclass(frozen=True)
class Union:
    """A union of sets."""

    parts: tuple[Shape, ...]


@dataclass(frozen=True)
class Without:
    """A set without another one: `whole` minus `taken`."""

    whole: Shape
    taken: Shape


@dataclass(frozen=True)
class Relation:
    """sides[0] ops[0] sides[1] ...: an equation, a chain of inequalities, a membership."""

    sides: tuple[Shape, ...]
    ops: Tokens


@dataclass(frozen=True)
class SetOf:
    """{ element | condition }."""

    element: Tokens
    condition: Shape


@dataclass(frozen=True)
class Matrix:
    """A matrix or a vector, row by row."""

    rows: tuple[tuple[Shape, ...], ...]


@dataclass(frozen=True)
class Ratio:
    """A ratio a:b:c."""

    parts: tuple[Shape, ...]


Shape = Expression | Several | Group | Union | Without | Relation | SetOf | Matrix | Ratio


def parse(tokens: Sequence[str]) -> Shape:
    """The outer form of an answer, from its tokens."""
    tokens = _trimmed(tuple(tokens))
    for separators in ((";",), ("\\lor",), ("\\land",), (",",)):
        parts, cuts = _split(tokens, separators)
        parts = [part for part in parts if part]
        if cuts and len(parts) > 1:
            return Several(tuple(map(parse, parts)), separators[0])
        if cuts and len(parts) == 1:
            return parse(parts[0])
    parts, cuts = _split(tokens, ("\\cup",))
    if cuts and all(parts):
        if not _split(tokens, RELATIONS)[1]:
            return Union(tuple(map(parse, parts)))
        if all(_split(part, RELATIONS)[1] for part in parts):  # x < 2 \cup x > 5
            return Several(tuple(map(parse, parts)), "\\lor")
    parts, cuts = _split(tokens, ("\\setminus", "\\backslash"))
    if len(parts) == 2 and all(parts) and not _split(tokens, RELATIONS)[1]:
        return Without(parse(parts[0]), parse(parts[1]))
    sides, ops = _split(tokens, RELATIONS)
    if ops:
        return Relation(tuple(parse(side) for side in sides), tuple(ops))
    parts, cuts = _split(tokens, (":",))
    if cuts and all(parts):
        return Ratio(tuple(map(parse, parts)))
    if len(tokens) > 1 and all(token[0].isdigit() for token in tokens):  # 1 2 3
        return Several(tuple(Expression((token,)) for token in tokens), ",")
    return _bracketed(tokens) or _scaled(tokens) or Expression(tokens)


def signs(tokens: Tokens) -> list[Tokens]:
    """The readings of +- and -+: both signs of each; -+ has the opposite sign of the +- before it."""
    count = sum(1 for t in tokens if t == "\\pm") or ("\\mp" in tokens)
    if not count or count > MAX_SIGNS:
        return [tuple(tokens)]
    readings = []
    tied = "\\mp" in tokens
    for drawn in [("+",) * count, ("-",) * count] if tied else itertools.product("+-", repeat=count):
        left = iter(drawn)
        sign = drawn[0]
        out = []
        for token in tokens:
            if token == "\\pm":
                sign = next(left)
                out.append(sign)
            elif token == "\\mp":
                out.append("-" if sign == "+" else "+")
            else:
                out.append(token)
        readings.append(tuple(out))
    return readings


def _split(tokens: Tokens, separators: Collection[str]) -> tuple[list[Tokens], list[str]]:
    """Parts at depth 0, and the separators between them."""
    parts, cuts, depth, start = [], [], 0, 0
    for i, token in enumerate(tokens):
        if token in _OPEN:
            depth += 1
        elif token in _CLOSE:
            depth -= 1
        elif depth == 0 and token in separators:
            parts.append(tuple(tokens[start:i]))
            cuts.append(token)
            start = i + 1
    return [*parts, tuple(tokens[start:])], cuts


def _trimmed(tokens: Tokens) -> Tokens:
    """The tokens without punctuation at their end."""
    end = len(tokens)
    while end and tokens[end - 1] in (",", ";", "."):
        end -= 1
    return tokens[:end]


def _closes_at(tokens: Tokens) -> int:
    """Position where the first bracket closes; -1 if it does not."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth == 0:
            return i
    return -1


def _bracketed(tokens: Tokens) -> Shape | None:
    if len(tokens) < 2 or tokens[0] not in ("(", "[", "{", "\\{") or _closes_at(tokens) != len(tokens) - 1:
        return _matrix(tokens)
    opener, inner, closer = tokens[0], _trimmed(tokens[1:-1]), tokens[-1]
    if opener == "{" and closer == "}":
        opener, closer = "\\{", "\\}"
        if not _split(inner, (",",))[1]:
            return parse(inner)
    if opener == "\\{":
        for bar in ("|", ":"):
            parts, cuts = _split(inner, (bar,))
            if len(cuts) == 1 and all(parts):
                return SetOf(parts[0], parse(parts[1]))
    parts, cuts = _split(inner, (";",) if _split(inner, (";",))[1] else (",",))
    if not inner:
        return Group(opener, (), closer)
    if not cuts and opener in ("(", "[") and (opener, closer) in (("(", ")"), ("[", "]")):
        return parse(inner)
    return Group(opener, tuple(parse(part) for part in parts if part), closer)


def _matrix(tokens: Tokens) -> Matrix | Several | None:
    """A matrix; or several equations, one below the other."""
    if len(tokens) < 6 or tokens[0] != "\\begin" or _closes_at_end(tokens) != len(tokens):
        return None
    name_end = tokens.index("}")
    name = "".join(tokens[2:name_end])
    if name not in _MATRICES:
        return None
    start = name_end + 1
    if name == "array" and tokens[start] == "{":
        start = tokens.index("}", start) + 1
    tail = len(tokens) - 1 - tokens[::-1].index("\\end")
    inner = tokens[start:tail]
    rows = [_split(row, ("&",))[0] for row in _split(inner, ("\\\\",))[0] if row]
    cells = tuple(tuple(parse(cell) for cell in row) for row in rows)
    equations = [row[0] for row in cells if len(row) == 1 and isinstance(row[0], Relation)]
    return Several(tuple(equations), ",") if len(equations) == len(cells) > 1 else Matrix(cells)


def _closes_at_end(tokens: Tokens) -> int:
    """The position after the first environment; -1 if it does not end."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token == "\\begin") - (token == "\\end")
        if depth == 0:
            try:
                return tokens.index("}", i) + 1
            except ValueError:
                return -1
    return -1


def _scaled(tokens: Tokens) -> Shape | None:
    """factor * matrix, factor (a, b), matrix / n: the factor multiplies every item."""
    for i, token in enumerate(tokens):
        if token in ("(", "[", "\\begin") and i > 0:
            whole = _bracketed(tokens[i:])
            factor = tokens[:i] if tokens[i - 1] != "*" else tokens[: i - 1]
            if isinstance(whole, Group) and len(whole.items) > 1 and _balanced(factor) and not _is_name(factor):
                return Group(whole.opener, tuple(_times(factor, item) for item in whole.items), whole.closer)
            if isinstance(whole, Matrix) and _balanced(factor):
                return Matrix(tuple(tuple(_times(factor, cell) for cell in row) for row in whole.rows))
    return None


def _is_name(tokens: Tokens) -> bool:
    """f in f(x, y): a call, not a factor."""
    return (len(tokens) == 1 and tokens[0].isalpha()) or tokens[-1:] == ("^",)


def _balanced(tokens: Tokens) -> bool:
    depth = 0
    for token in tokens:
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth < 0:
            return False
    return depth == 0 and tokens != ()


def _times(factor: Tokens, item: Shape) -> Shape:
    if not isinstance(item, Expression):
        return item
    if factor == ("-",):
        return Expression(("-", "(", *item.tokens, ")"))
    return Expression(("(", *factor, ")", "*", "(", *item.tokens, ")"))


def reversed_chain(chain: Relation) -> Relation:
    """A chain of inequalities read from its other end."""
    return Relation(chain.sides[::-1], tuple(_FLIP[op] for op in chain.ops[::-1]))
