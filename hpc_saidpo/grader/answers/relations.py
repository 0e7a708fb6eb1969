"""Equations, inequalities in several unknowns, and named values."""

from __future__ import annotations

from collections.abc import Sequence

from . import values
from .leaves import Same, all_of, any_of, is_name, is_quantity, plain_name, tree_of, value_side
from .shape import ORDER, Expression, Relation, Shape, reversed_chain
from .trees import Tree, symbols


def in_order(gold: Sequence[Shape], answer: Sequence[Shape], same: Same) -> bool | None:
    """Whether items agree one by one, without their names."""
    if len(gold) != len(answer):
        return False
    return all_of(same(value_side(g), value_side(a)) for g, a in zip(gold, answer, strict=True))


def same_relations(gold: Shape, answer: Shape, same: Same) -> bool | None:
    """Whether two answers mean the same, at least one of them a relation."""
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        if gold.ops == answer.ops == ("=",):
            return _same_equations(gold, answer, same)
        if set(gold.ops) | set(answer.ops) <= ORDER:
            return _same_chains(gold, answer, same)
        if gold.ops == answer.ops and "=" not in gold.ops:
            return in_order(gold.sides, answer.sides, same)
        return _one_of_chain(gold, answer, same)
    relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    assert isinstance(relation, Relation)
    if relation.ops == ("=",):
        left, right = relation.sides
        if is_quantity(left):
            return same(right, other) if relation is gold else same(other, right)
        if relation is answer and _true_identity(left, right, same):
            return same(gold, right)
        return False
    if relation.ops == ("\\in",) and is_name(relation.sides[0]):
        return same(relation.sides[1], other) if relation is gold else same(other, relation.sides[1])
    return _one_of_chain(gold, answer, same)


def _one_of_chain(gold: Shape, answer: Shape, same: Same) -> bool | None:
    """Compare with the values of a chain such as a = b = c or a \\approx b."""
    if isinstance(gold, Relation) and set(gold.ops) <= {"=", "\\approx"}:
        return any_of(same(side, answer) for side in _values_of(gold))
    if isinstance(answer, Relation) and set(answer.ops) <= {"=", "\\approx"}:
        sides = _values_of(answer)
        if "\\approx" in answer.ops:  # exact \approx rounded: the exact one, or the rounded one if gold is rounded
            return any_of(same(gold, side) for side in sides)
        return all_of([same(gold, side) for side in sides])
    return False


def _values_of(chain: Relation) -> list[Shape]:
    sides = [side for side in chain.sides if side != Expression(())]
    return [side for i, side in enumerate(sides) if i or not is_name(side)] or sides[-1:]


def _true_identity(left: Shape, right: Shape, same: Same) -> bool:
    """Whether two sides without an unknown are equal, as in 3 + 4 = 7."""
    if not (isinstance(left, Expression) and isinstance(right, Expression)):
        return False
    trees = [tree for tree in (tree_of(left.tokens), tree_of(right.tokens)) if tree is not None]
    return not any(symbols(t) for t in trees) and bool(same(left, right))


def _same_equations(gold: Relation, answer: Relation, same: Same) -> bool | None:
    (gold_left, gold_right), (left, right) = gold.sides, answer.sides
    if gold_left == left and left != Expression(()):
        return same(gold_right, right)
    if is_name(gold_left) and is_name(left):
        if plain_name(gold_left) == plain_name(left):
            return same(gold_right, right)
        if not is_name(right) and not is_name(gold_right):
            return same(gold_right, right)
    if not all(isinstance(side, Expression) for side in (gold_left, gold_right, left, right)):
        return all_of([same(gold_left, left), same(gold_right, right)])
    gold_tree, tree = difference(gold), difference(answer)
    if gold_tree is None or tree is None:
        return None
    if not symbols(gold_tree) and not symbols(tree):
        return all_of([same(gold_left, left), same(gold_right, right)])
    if is_name(gold_left) and same(gold_left, left):
        return same(gold_right, right)
    return values.ratio(gold_tree, tree) is not None


def difference(equation: Relation) -> Tree | None:
    """The tree of left side minus right side; None if one is outside the grammar."""
    trees = [tree_of(side.tokens) if isinstance(side, Expression) else None for side in equation.sides]
    return None if None in trees else ("+", trees[0], ("-", trees[1]))


def _same_chains(gold: Relation, answer: Relation, same: Same) -> bool | None:
    """Inequalities in several unknowns: the same chain, read from either end; or the same difference."""
    if len(gold.ops) != len(answer.ops):
        return False
    if Expression(()) in (*gold.sides, *answer.sides):  # a sign alone has no other end to read it from
        return gold.ops == answer.ops and in_order(gold.sides, answer.sides, same)
    for chain in (answer, reversed_chain(answer)):
        if chain.ops == gold.ops and (verdict := in_order(gold.sides, chain.sides, same)) is not False:
            return verdict
    if len(gold.ops) > 1:
        return False
    for chain in (answer, reversed_chain(answer)):
        if chain.ops == gold.ops:
            gold_tree, tree = difference(gold), difference(chain)
            ratio = None if gold_tree is None or tree is None else values.ratio(gold_tree, tree)
            if ratio is not None:
                return bool(ratio.real > 0)
    return False
