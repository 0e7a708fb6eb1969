r"""Sets by a rule, { element | condition }: \{3k | k \in \mathbb{Z}\} and \{x | x = 3k, k \in \mathbb{Z}\}."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from .families import same_family
from .leaves import Same, matched, tree_of, value_side
from .shape import Expression, Relation, SetOf, Several, Shape, parse
from .trees import symbols

_INTEGERS = Expression(("\\mathbb", "{", "Z", "}"))
_ALL = _INTEGERS, Expression(("\\mathbb", "{", "R", "}"))


@dataclass(frozen=True)
class _Rule:
    """The element of a set, and its conditions; an equation for the element is put into it."""

    element: Shape
    conditions: tuple[Shape, ...]

    def names(self) -> set[str]:
        """The symbols of the element."""
        tree = tree_of(self.element.tokens) if isinstance(self.element, Expression) else None
        return symbols(tree) if tree is not None else set()


def same_set_builders(gold: Shape, answer: Shape, same: Same) -> bool | None:
    """Whether two sets are the same, at least one of them by a rule.

    The name of the element does not matter. A set of all integer multiples is also the value itself: `3k`.
    """
    if not isinstance(gold, SetOf) or not isinstance(answer, SetOf):
        one, other = (gold, answer) if isinstance(gold, SetOf) else (answer, gold)
        rule = _rule(one) if isinstance(one, SetOf) else _Rule(one, ())
        if not rule.conditions or not all(_domain(condition) == _INTEGERS for condition in rule.conditions):
            return False
        value = value_side(other)
        if isinstance(value, SetOf):
            return False
        return same(rule.element, value) if isinstance(gold, SetOf) else same(value, rule.element)
    gold_rule, rule = _rule(gold), _rule(answer)
    gold_names, names = gold_rule.names() - rule.names(), rule.names() - gold_rule.names()
    if len(gold_names) == len(names) == 1:
        rule = _renamed(rule, *names, *gold_names)
    if matched(gold_rule.conditions, rule.conditions, same) is not True:
        return False
    equal = same(gold_rule.element, rule.element)
    if equal or not any(_domain(condition) == _INTEGERS for condition in rule.conditions):
        return equal
    pair = gold_rule.element, rule.element
    trees = [tree_of(side.tokens) if isinstance(side, Expression) else None for side in pair]
    return same_family(trees[0], trees[1]) if trees[0] and trees[1] else equal


def _rule(node: SetOf) -> _Rule:
    conditions = list(node.condition.items if isinstance(node.condition, Several) else (node.condition,))
    element = parse(node.element)
    if isinstance(element, Relation) and element.ops == ("\\in",):  # { x \in S | ... }
        conditions.append(element)
        element = element.sides[0]
    for condition in conditions:
        if isinstance(condition, Relation) and condition.ops == ("=",) and condition.sides[0] == element:
            others = [c for c in conditions if c is not condition and not _is_domain_of(element, c)]
            return _Rule(condition.sides[1], tuple(others))
    return _Rule(element, tuple(conditions))


def _is_domain_of(element: Shape, condition: Shape) -> bool:
    return isinstance(condition, Relation) and _domain(condition) in _ALL and condition.sides[0] == element


def _domain(condition: Shape) -> Shape | None:
    r"""The set S of the condition `k \in S`; None for any other condition."""
    return condition.sides[1] if isinstance(condition, Relation) and condition.ops == ("\\in",) else None


def _renamed(node: Any, old: str, new: str) -> Any:
    """A shape, or a part of it, with another name for a symbol."""
    if isinstance(node, str):
        return new if node == old else node
    if isinstance(node, tuple):
        return tuple(_renamed(part, old, new) for part in node)
    return type(node)(*(_renamed(getattr(node, field.name), old, new) for field in fields(node)))
