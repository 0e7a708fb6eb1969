"""Equations, inequalities in several unknowns, and named values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import values
from .grammar import symbols
from .leaves import all_of, any_of, is_name, plain_name, tree_of
from .shape import ORDER, Expression, Relation, reversed_chain

# Whether two shapes mean the same: `compare` gives its own.
Same = Callable[[object, object], bool | None]


def in_order(gold: Sequence, answer: Sequence, same: Same) -> bool | None:
    """Whether items agree one by one; their names do not matter."""
    if len(gold) != len(answer):
        return False
    return all_of(same(value_side(g), value_side(a)) for g, a in zip(gold, answer, strict=True))


def value_side(node):
    r"""What `x = value` and `x \in values` give; any other node itself."""
    if isinstance(node, Relation) and node.ops in (("=",), ("\\in",)) and is_name(node.sides[0]):
        return node.sides[1]
    return node


def same_relations(gold, answer, same: Same) -> bool | None:
    """Whether two answers, one of them a relation at least, mean the same."""
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        if gold.ops == answer.ops == ("=",):
            return _same_equations(gold, answer, same)
        if set(gold.ops) | set(answer.ops) <= ORDER:
            return _same_chains(gold, answer, same)
        if gold.ops == answer.ops and "=" not in gold.ops:
            return in_order(gold.sides, answer.sides, same)
        return _one_of_chain(gold, answer, same)
    relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    if relation.ops == ("=",):
        left, right = relation.sides
        if is_name(left):
            return same(right, other) if relation is gold else same(other, right)
        if relation is answer and _true_identity(left, right, same):
            return same(gold, right)
        return False
    if relation.ops == ("\\in",) and is_name(relation.sides[0]):
        return same(relation.sides[1], other) if relation is gold else same(other, relation.sides[1])
    return _one_of_chain(gold, answer, same)


def _one_of_chain(gold, answer, same: Same) -> bool | None:
    """a = b = c and a \\approx b: the exact value that the chain gives."""
    if isinstance(gold, Relation) and set(gold.ops) <= {"=", "\\approx"}:
        return any_of(same(side, answer) for side in _values_of(gold))
    if isinstance(answer, Relation) and set(answer.ops) <= {"=", "\\approx"}:
        found = _values_of(answer)
        if "\\approx" in answer.ops:  # exact \approx rounded: the exact one, or the rounded one where gold is rounded
            return any_of(same(gold, side) for side in found)
        verdicts = [same(gold, side) for side in found]
        return all_of(verdicts)
    return False


def _values_of(chain: Relation) -> list:
    return [s for i, s in enumerate(chain.sides) if i or not is_name(s)] or [chain.sides[-1]]


def _true_identity(left, right, same: Same) -> bool:
    """Two sides that are equal, and not for some values of an unknown only: 3 + 4 = 7."""
    if not (isinstance(left, Expression) and isinstance(right, Expression)):
        return False
    trees = [tree for tree in (tree_of(left.tokens), tree_of(right.tokens)) if tree is not None]
    return not any(symbols(t) for t in trees) and bool(same(left, right))


def _same_equations(gold: Relation, answer: Relation, same: Same) -> bool | None:
    (gold_left, gold_right), (left, right) = gold.sides, answer.sides
    if is_name(gold_left) and is_name(left):
        if plain_name(gold_left) == plain_name(left):
            return same(gold_right, right)
        if not is_name(right) and not is_name(gold_right):
            return same(gold_right, right)
    if not all(isinstance(side, Expression) for side in (gold_left, gold_right, left, right)):
        return all_of([same(gold_left, left), same(gold_right, right)])
    trees = [difference(r) for r in (gold, answer)]
    if None in trees:
        return None
    if not any(symbols(t) for t in trees):
        return all_of([same(gold_left, left), same(gold_right, right)])
    if is_name(gold_left) and same(gold_left, left):
        return same(gold_right, right)
    return values.ratio(*trees) is not None


def difference(equation: Relation):
    trees = [tree_of(side.tokens) if isinstance(side, Expression) else None for side in equation.sides]
    return None if None in trees else ("+", trees[0], ("-", trees[1]))


def _same_chains(gold: Relation, answer: Relation, same: Same) -> bool | None:
    """Inequalities in several unknowns: the same chain, read from either end; or the same difference."""
    if len(gold.ops) != len(answer.ops):
        return False
    for chain in (answer, reversed_chain(answer)):
        if chain.ops == gold.ops and (verdict := in_order(gold.sides, chain.sides, same)) is not False:
            return verdict
    if len(gold.ops) > 1:
        return False
    for chain in (answer, reversed_chain(answer)):
        if chain.ops == gold.ops:
            trees = [difference(r) for r in (gold, chain)]
            found = None if None in trees else values.ratio(*trees)
            if found is not None:
                return bool(found.real > 0)
    return False
