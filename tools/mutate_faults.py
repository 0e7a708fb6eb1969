"""Small faults in Python source, for mutate.py: one changed comparison, number, call or assignment each.

Messages, log lines, docstrings, types and decorators are not changed: a change there is no fault of the program.
"""

from __future__ import annotations

import ast
import bisect
import copy
import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

LOGS = {"log", "logger", "logging", "warnings", "print", "say_once"}
TYPES = {"Annotated", "Literal", "Callable", "TYPE_CHECKING"}
OPPOSITE = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Eq: ast.NotEq, ast.Is: ast.IsNot, ast.In: ast.NotIn}
EDGE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
COMPARISONS = {"boundary": EDGE, "comparison": OPPOSITE | {b: a for a, b in OPPOSITE.items()}}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
SEQUENCES = {str, ast.List, ast.Tuple, ast.JoinedStr}
EXTREMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "argmin": "argmax"}
IMPORT = 0  # the `function` of a fault in code that an import executes


@dataclass(frozen=True)
class Fault:
    """One fault: the bytes `start` to `stop` of a file become `after`.

    Attributes:
        path: the file, relative to the repository.
        function: the first line of the innermost function around it, decorators included; `IMPORT` outside of any.
        kind: e.g. "boundary", "negated condition".
    """

    path: str
    line: int
    function: int
    kind: str
    start: int
    stop: int
    before: str
    after: str

    def applied(self, source: bytes) -> bytes:
        """Return the file's content with the fault in it."""
        return source[: self.start] + self.after.encode() + source[self.stop :]


class _Finder:
    """Walks the syntax tree of one file."""

    def __init__(self, path: str, source: bytes, rng: random.Random):
        self._path, self._source, self._rng = path, source, rng
        self._starts = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]

    def visit(
        self, node: ast.AST, function: ast.FunctionDef | None, known: set[str], defaults: list
    ) -> Iterator[Fault]:
        for kind, at, new in _changes(node, function, known, any(node is d for d in defaults), self._rng):
            yield self._fault(function, kind, at, new)
        if isinstance(node, ast.FunctionDef):
            function, known = node, {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
            defaults = [*node.args.defaults, *node.args.kw_defaults]
        defaults = [node.value] if isinstance(node, ast.AnnAssign) else defaults
        types = [getattr(node, name, None) for name in ("annotation", "returns")] + getattr(node, "decorator_list", [])
        for child in ast.iter_child_nodes(node):
            if not _is_no_place(child) and not any(child is t for t in types):
                yield from self.visit(child, function, known, defaults)
        known |= _bound(node)

    def _fault(self, function, kind, at, new) -> Fault:
        start = self._starts[at.lineno - 1] + at.col_offset
        stop = self._starts[at.end_lineno - 1] + at.end_col_offset
        after = new if isinstance(new, str) else ast.unparse(new)
        after = f"({after})" if isinstance(new, ast.expr) else after
        first = min([function.lineno, *(d.lineno for d in function.decorator_list)]) if function else IMPORT
        before = self._source[start:stop].decode()
        return Fault(self._path, at.lineno, first, kind, start, stop, before, after)


def faults_of(path: str, source: bytes, rng: random.Random) -> list[Fault]:
    """Return every fault of a file.

    Args:
        path: relative to the repository.
        rng: decides whether an integer grows or shrinks by one.
    """
    return [*_Finder(path, source, rng).visit(ast.parse(source), None, set(), [])]


def draw(faults: list[Fault], n: int, rng: random.Random) -> list[Fault]:
    """Return n faults, drawn systematically.

    A folder of m faults gets a share proportional to the square root of m. Within a folder, files and kinds get shares
    proportional to their numbers of faults.
    """
    faults = list(faults)
    rng.shuffle(faults)
    faults.sort(key=lambda fault: (fault.path, fault.kind))
    size, start = Counter(os.path.dirname(fault.path) for fault in faults), rng.random()
    reached = list(itertools.accumulate(size[os.path.dirname(fault.path)] ** -0.5 for fault in faults))
    return [faults[bisect.bisect(reached, (i + start) / n * reached[-1])] for i in range(n)]


def _is_no_place(node: ast.AST) -> bool:
    """Whether it is an error message, logging, or a type."""
    is_log = isinstance(node, ast.Call | ast.Expr) and ast.unparse(node).partition("(")[0].partition(".")[0] in LOGS
    is_type = isinstance(node, ast.Subscript | ast.If) and ast.unparse(next(ast.iter_child_nodes(node))) in TYPES
    return is_log or is_type or isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr)


def _changes(node, function, known, is_default, rng) -> Iterator[tuple[str, ast.AST, ast.AST | str]]:
    """Yield (kind, replaced node, its replacement) of every fault of one node."""
    yield from _changed_operators(node)
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in EXTREMES:
            yield "min/max", node.func, ast.unparse(node.func).removesuffix(name) + EXTREMES[name]
        case ast.Constant(value=bool() | int() | float() as value) if is_default or not isinstance(value, bool):
            kind = "default" if is_default else "off by one" if isinstance(value, int) else "float x2"
            step = rng.choice((-1, 1)) if value else 1
            yield kind, node, str({bool: not value, int: value + step, float: 2 * value or 1.0}[type(value)])
        case ast.Return(value=ast.expr() as value) if function and function.returns:
            if "None" not in (ast.unparse(value), ast.unparse(function.returns)):
                yield "return None", value, "None"
        case ast.Expr(value=ast.Call()) if function:
            yield "deleted call", node, "pass"
    # An assignment that binds a name for the first time stays: any use of the name would fail.
    is_again = isinstance(node, ast.AugAssign) or (isinstance(node, ast.Assign) and _bound(*node.targets) <= known)
    if is_again and function and function.name != "__init__":
        yield "deleted assignment", node, "pass"
    for test in [node.test] if isinstance(node, ast.If | ast.While | ast.IfExp) else getattr(node, "ifs", []):
        if not isinstance(test, ast.UnaryOp):
            yield "negated condition", test, ast.UnaryOp(ast.Not(), test)


def _changed_operators(node) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    match node:
        case ast.Compare():
            for (i, operator), (kind, swaps) in itertools.product(enumerate(node.ops), COMPARISONS.items()):
                if type(operator) in swaps:
                    operators = [*node.ops[:i], swaps[type(operator)](), *node.ops[i + 1 :]]
                    yield kind, node, ast.Compare(node.left, operators, node.comparators)
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) if type(operator) in ARITHMETIC:
            left, _, right = ast.iter_child_nodes(node)
            if SEQUENCES.isdisjoint(type(getattr(side, "value", side)) for side in (left, right)):
                changed = copy.copy(node)
                changed.op = ARITHMETIC[type(operator)]()
                yield "arithmetic", node, changed
        case ast.BoolOp():
            yield "and/or", node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield "dropped not", node, node.operand


def _bound(*nodes: ast.AST) -> set[str]:
    """Return the names that a node assigns to."""
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
