"""Replies of language models, as they come, and knowledge points in one form."""

import ast
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpc_saidpo.tags import reply
from hpc_saidpo.tags.asking import make_sorting, make_tagging
from hpc_saidpo.tags.reply import MAX_CHARS, MAX_TAGS, MIN_CHARS, normalise, parse, singular

TWO = ("algebra", "linear equation")


@pytest.mark.parametrize(
    "said",
    [
        '["algebra", "linear equations"]',
        '```json\n["Algebra", "Linear Equations"]\n```',
        'Sure! Here are the tags:\n\n["algebra", "linear equations"]\n\nI hope that helps.',
        '{"tags": ["algebra", "linear equations"]}',
        '{"problem": "[0, 1]", "tags": ["algebra", "linear equations"]}',
        "['algebra', 'linear equations']",
        "[algebra, linear equations]",
        '[\n  "algebra",\n  "linear equations",\n]',
        "- algebra\n- linear equations",
        "* **Algebra**: letters for numbers\n* **Linear equations** - of one unknown",
        "The knowledge points are\n1. Algebra\n2) Linear equations (one unknown)\n\nDone.",
        "Tags: algebra, linear equations",
        "**Topics:** algebra; linear equations.",
        '{"tags": "algebra, linear equations"}',
        "“Tags”：algebra、linear equations",
        "[“algebra”，“linear equations”]",
        '["algebra"、"linear equations"]',
        '["algebra; linear equations"]',
        '["algebra", "linear equations", "systems of equ',
        '["algebra", "linear equations", ',
        '<think>Is it ["geometry"]? No.</think>\n["algebra", "linear equations"]',
        'it is ["geometry"]? No.</think>["algebra", "linear equations"]',
        '["algebra", "Algebra", "linear equation", "linear equations", "ALGEBRA"]',
        '["$\\text{algebra}$", "\\(linear\\) equations"]',
        '["\\u0061lgebra", "linear_equations"]',
        '["ａｌｇｅｂｒａ", "linear  equations."]',
        '["x", "algebra", "", "2", "linear equations", "' + "long " * 13 + '"]',
    ],
)
def test_a_reply_in_whatever_form(said):
    assert parse(said) == TWO


@pytest.mark.parametrize(
    "said",
    [
        "",
        "The answer is 5.",
        "First, we solve for x, then for y.",
        "The interval [0, 1] is closed, so the maximum is $x_1$.",
        "\\[ x = 2 \\]",
        "1. Multiply both sides of the first equation by two\n2. x = 4",
        '<think>["algebra", "linear equations"]',
        "[]",
        '["algeb',
        '["12", "3.5"]',
    ],
)
def test_what_names_nothing(said):
    assert parse(said) == ()


def test_an_apostrophe_ends_no_item():
    assert parse("['Vieta's formulas', 'pell's equation']") == ("vieta's formula", "pell's equation")
    assert parse("[\"l'Hôpital's rule\"]") == ("l'hôpital's rule",)


def test_invalid_escapes_of_latex_do_no_harm():
    assert json.dumps("x") and parse(r'["powers of \sqrt{x}", "the \pi theorem", "\frac{a}{b} sums"]') == (
        "power of sqrt x", "the pi theorem", "a b sum",
    )  # fmt: skip
    with pytest.raises(json.JSONDecodeError):
        json.loads(r'["\sqrt{x}"]')


def test_five_at_most_in_their_order():
    assert parse(json.dumps(["geometry", "area", "circle", "angle", "chord", "tangent"])) == (
        "geometry", "area", "circle", "angle", "chord",
    )  # fmt: skip


def test_the_longest_and_the_shortest_point():
    points = {length: normalise("x" * length) for length in (MIN_CHARS - 1, MIN_CHARS, MAX_CHARS, MAX_CHARS + 1)}
    assert [length for length, point in points.items() if point] == [2, 60]


def test_a_line_of_seven_words_is_a_sentence():
    assert parse("- sum of the first odd numbers\n- it is the sum of odd numbers") == ("sum of the first odd number",)


@pytest.mark.parametrize(
    "word, one",
    [(one, one) for one in ("calculus", "series", "analysis", "modulus", "statistics", "class", "vieta's", "bayes")]
    + [("triangles", "triangle"), ("probabilities", "probability"), ("vertices", "vertex"), ("matrices", "matrix"),
       ("boxes", "box"), ("branches", "branch"), ("classes", "class"), ("primes", "prime")],
)  # fmt: skip
def test_the_singular(word, one):
    assert singular(word) == one


def test_a_skill_is_read_only_as_it_stands_in_the_list():
    task = make_sorting(["Solving equations", "Areas and volumes"])
    assert task.read("Solving Equations.") == task.read('["solving equations"]') == ("Solving equations",)
    assert task.read("areas") == task.read("equations") == task.read("") == ()
    assert task.version != make_sorting(["Solving equations"]).version != make_tagging().version


def test_the_prompt_shows_its_own_form():
    messages = make_tagging().messages("What is 1 + 1?")
    shown = [parse(m["content"]) for m in messages if m["role"] == "assistant"]
    assert len(shown) == 2 and all(list(own) == json.loads(m["content"]) for own, m in zip(
        shown, [m for m in messages if m["role"] == "assistant"], strict=True))  # fmt: skip
    assert (
        make_tagging().second_messages("What is 1 + 1?")[-1]["content"]
        == messages[-1]["content"] + "\n\nJSON list only."
    )


PIECES = st.sampled_from([
    '["', '", "', "']", "['", "[", "]", "{", "}", '"', "'", "\\", "\\frac", "<think>", "</think>", "```",
    "\n- ", "\n1. ", "Tags: ", "、", "，", "\\u0041", "\\ud800", "\x1f", "\x00", "algebra", "series ", "triangles",
    "İ", "ﬃ", "ss", "es", "ies", " ", "“", "”", "\ud800", "_", "$",
])  # fmt: skip
TEXTS = st.one_of(
    st.text(), st.lists(PIECES).map("".join), st.lists(st.one_of(PIECES, st.text(max_size=4))).map("".join)
)


@given(TEXTS)
@example("['" * 2000)
@example("[" * 4000)
@example('["' + "\\" * 4000)
@example("'" * 4000 + "[" + "'" * 3000)
def test_any_reply_gives_points_within_the_limits(text):
    points = parse(text)
    assert len(points) == len(set(points)) <= MAX_TAGS
    for point in points:
        assert MIN_CHARS <= len(point) <= MAX_CHARS and point.isprintable() and point == normalise(point)


@given(TEXTS)
def test_normalising_twice_is_normalising_once(text):
    assert normalise(normalise(text)) == normalise(text)


@given(
    st.lists(
        st.text(st.characters(categories=["Ll"], max_codepoint=127), min_size=2, max_size=9), min_size=1, max_size=5
    )
)
def test_a_plain_list_is_read_as_it_is(words):
    expected = tuple(dict.fromkeys(filter(None, map(normalise, words))))
    assert parse(json.dumps(words)) == parse(json.dumps({"tags": words})) == expected


def test_it_depends_on_nothing_and_evaluates_nothing():
    nodes = list(ast.walk(ast.parse(Path(reply.__file__).read_text())))
    imported = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    assert imported == {"__future__", "collections.abc", "itertools", "re", "unicode"}
    assert not {n.id for n in nodes if isinstance(n, ast.Name)} & {"eval", "exec", "compile", "__import__"}
