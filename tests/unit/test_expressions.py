"""The expression that a question asks for, against values that Python computes, and by known pairs."""

import ast
import itertools
import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_saidpo.pool.expressions import expression

SAME = [
    ["What is 2 + 7?", "Evaluate: 7 + 2.", "Calculate ( ( 7 + 2 ) ).", "7+2=?", "State the final answer: $2 + 7 =$"],
    ["Compute 9 * -6.", "Calculate ( -6 * 9 ).", r"What is $9 \cdot (-6)$?", "Solve -6 × 9"],
    ["1,000 + 2", "2+1000"],
    [r"Find the value of $\frac{1}{2}+\frac13$", "1/3 + 1/2"],
    ["46+6-5=?", "46-5+6", "6+46-5=?"],
    ["(2+3)+4", "4+(3+2)", "2+3+4"],
    [
        "Find the Greatest Common Divisor (GCD) of these numbers: 11, 120.",
        "gcd(120, 11)",
        "What is the GCD of 120 and 11?",
    ],
    ["Find the Least Common Multiple (LCM) of these numbers: 61, 71", "lcm of 71 and 61", "lcm(71, 61) ="],
    ["gap 9 105", "gap 105 9"],
    ["Solve for q: q + 4 = 7", "Determine the value of f that satisfies: 4 + f = 7", "7 = 4 + a. Find a."],
]
NONE = [
    "Round 2 + 7 to tens.", "Factor 12", "Express 1/4 as a decimal", "Find x.", "2 3", "What is 5!?", "12 mod 5",
    "x + y = 3", "What is 2 +?", "", "(" * 290, "1" + "+1" * 400, "gcd of 5", "What is 20% of 50?",
    "gcd of 5 and 10 = 5",
]  # fmt: skip


@pytest.mark.parametrize("texts", SAME, ids=[texts[0][:20] for texts in SAME])
def test_wording_and_order_do_not_count(texts):
    assert len({expression(text) for text in texts}) == 1 and expression(texts[0]) is not None


def test_different_expressions_differ():
    found = [expression(texts[0]) for texts in SAME] + [
        expression(t) for t in ("2 - 7", "7 - 2", "2 * 7", "2 / 7", "82")
    ]
    found += [expression(t) for t in ("a = 82", "2 - c = 1", "c - 2 = 1", "2(3+4)", "2*3+4", "lcm of 120 and 11")]
    assert None not in found
    assert all(one != other for one, other in itertools.combinations(found, 2))


@pytest.mark.parametrize("text", NONE)
def test_other_questions_have_no_expression(text):
    assert expression(text) is None


LEAVES = st.integers(0, 30).map(str)
TREES = st.recursive(LEAVES, lambda tree: st.tuples(st.sampled_from("+-*"), tree, tree), max_leaves=6)


def written(tree, draw):
    """The expression as a text, with operands of + and * in an order, and parentheses, that `draw` chooses."""
    if isinstance(tree, str):
        return tree
    sign, *sides = tree
    if sign in "+*" and draw(st.booleans()):
        sides.reverse()
    return sign.join(f"({written(side, draw)})" if isinstance(side, tuple) else side for side in sides)


SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def value(node):
    """The value of a parsed expression."""
    return node.value if isinstance(node, ast.Constant) else SIGNS[type(node.op)](value(node.left), value(node.right))


@settings(max_examples=100, deadline=None)
@given(TREES, st.data())
def test_the_same_expression_in_any_order_has_one_form_and_one_value(tree, data):
    one, other = (written(tree, data.draw) for _ in range(2))
    assert value(ast.parse(one, mode="eval").body) == value(ast.parse(other, mode="eval").body)
    found = expression(f"What is {one}?")
    assert found == expression(f"Compute {other}.") and (found is not None or isinstance(tree, str))
