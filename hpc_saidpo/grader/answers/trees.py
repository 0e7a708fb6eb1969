"""Trees of expressions: tuples (kind, ...), whose children are trees, texts, or tuples of trees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Tree = tuple[Any, ...]
_SIGNIFICANT_DIGITS = 6  # of a decimal that may be a rounded value


def nodes(tree: Tree) -> Iterator[Tree]:
    """Every node of a tree."""
    yield tree
    for child in tree[1:]:
        if isinstance(child, tuple):
            for inner in child if child and isinstance(child[0], tuple) else (child,):
                yield from nodes(inner)


def symbols(tree: Tree) -> set[str]:
    """Names of the free symbols and unknown functions of a tree."""
    return {node[1] for node in nodes(tree) if node[0] in ("symbol", "call")}


def replaced(tree: Tree, name: str, new: Tree) -> Tree:
    """The tree with another tree for a symbol."""
    if tree[:1] == ("symbol",):
        return new if tree[1] == name else tree
    return tuple(replaced(child, name, new) if isinstance(child, tuple) else child for child in tree)


def has_decimal(tree: Tree) -> bool:
    """Whether a decimal of six digits or more occurs, which may be a rounded value."""
    decimals = [node[1] for node in nodes(tree) if node[0] == "n" and "." in node[1]]
    return any(len(decimal.replace(".", "").lstrip("0")) >= _SIGNIFICANT_DIGITS for decimal in decimals)
