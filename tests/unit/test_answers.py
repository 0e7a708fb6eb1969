"""Answers in many forms against gold answers, and what has no value on either side of every comparison."""

import json
from pathlib import Path

import pytest
from bench import grader_sets

from hpc_saidpo.grader.answers.fast import decide, thorough
from hpc_saidpo.grader.answers.gold import defects
from hpc_saidpo.grader.self_check import self_check
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG

DATA = Path(__file__).parents[1] / "data"
# Expressions without a finite value that the grammar reads, and those for the library.
NO_VALUE = (
    "1/0", "\\frac{1}{0}", "0^0", "0^{-1}", "\\log 0", "\\ln 0", "\\cot 0", "\\tan\\frac{\\pi}{2}", "\\infty",
    "-\\infty", "oo", "-oo", "infinity", "\\infty-\\infty", "\\frac{\\infty}{\\infty}", "0\\cdot\\infty", "1^\\infty",
    "nan", "zoo", "\\frac{\\sin\\pi}{\\sin\\pi}", "1/\\infty",
)  # fmt: skip
NO_VALUE_OF_LIBRARY = (
    "\\sum_{n=1}^\\infty n", "\\sum_{n=0}^\\infty (-1)^n", "\\lim_{x\\to0}\\frac{1}{x^2}",
    "\\lim_{x\\to0}\\frac{|x|}{x}", "\\int_0^\\infty x\\,dx", "\\int_{-1}^1\\frac{1}{x}dx", "\\prod_{n=1}^\\infty n",
)  # fmt: skip
# (gold answer, another answer of its form with a place for a value)
FORMS = (
    ("5", "VALUE"), ("0", "VALUE"), ("1", "VALUE"), ("0.333333", "VALUE"), ("\\sqrt{2}", "VALUE"), ("x+1", "VALUE"),
    ("50\\%", "VALUE\\%"), ("12\\text{ cm}", "VALUE\\text{ cm}"), ("12\\text{ cm}", "VALUE\\text{ mm}"),
    ("2:3", "2:VALUE"), ("0", "2:VALUE"), ("2:3", "VALUE:3"), ("1:2:3", "1:2:VALUE"), ("x=3", "x=VALUE"),
    ("y=2x+1", "y=2x+VALUE"), ("1 \\text{ or } 2", "1 \\text{ or } VALUE"), ("1,2", "1,VALUE"), ("1", "1,VALUE"),
    ("\\{1,2\\}", "\\{1,VALUE\\}"), ("(3,2)", "(3,VALUE)"), ("[1,2]", "[1,VALUE]"), ("(-3,2]", "(-3,VALUE]"),
    ("(1,2)\\cup(3,4)", "(1,2)\\cup(3,VALUE)"), ("x<2", "x<VALUE"), ("1<x<2", "1<x<VALUE"), ("x\\ne 2", "x\\ne VALUE"),
    ("\\begin{pmatrix}3\\\\2\\end{pmatrix}", "\\begin{pmatrix}3\\\\VALUE\\end{pmatrix}"),
    ("[[1,2],[3,4]]", "[[1,2],[3,VALUE]]"), ("\\{x|x=3k,k\\in\\mathbb{Z}\\}", "\\{x|x=VALUE,k\\in\\mathbb{Z}\\}"),
)  # fmt: skip
LIBRARY_FORMS = FORMS[:2] + FORMS[6:8] + FORMS[13:14] + FORMS[19:20]


def read_pairs(name):
    lines = (DATA / f"answers_{name}.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split(" ||| ")) for line in lines]


@pytest.mark.parametrize("name, expected", [("same", True), ("different", False)])
def test_answers_in_many_forms(grader, name, expected):
    pairs = read_pairs(name)
    assert len(pairs) > 300
    judged = [(gold, answer, grader.grade(f"so \\boxed{{{answer}}}", gold)) for gold, answer in pairs]
    assert [one for one in judged if (one[2].verdict == CORRECT) != expected] == []


@pytest.mark.parametrize(
    "gold, answer",
    [
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\\\3\\end{pmatrix}"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\end{pmatrix}"),
        ("\\{1,2\\}", "\\{1,3\\}"),
        ("\\{1,2\\}", "\\{1,2,3\\}"),
    ],
)
def test_another_form_or_another_item_is_wrong_without_the_library(gold, answer):
    assert decide(gold, answer) is None and thorough(gold, answer).verdict == WRONG


def test_an_answer_of_a_thousand_characters_is_read():
    longest = "0.5".ljust(1000, "0")
    assert decide("\\frac12", longest).verdict == CORRECT
    assert decide("\\frac12", longest + "0").verdict == WRONG
    assert decide("\\frac12" + longest[3:], "\\frac12" + longest[3:] + " ").verdict == CORRECT  # the same text


def test_every_gold_answer_of_the_tables_is_itself(grader):
    golds = {gold for name in ("same", "different") for gold, _ in read_pairs(name)}
    assert [g for g in golds if grader.grade(f"so \\boxed{{{g}}}", g).verdict != CORRECT] == []


def without_library(gold, answer):
    return (decide(gold, answer) or thorough(gold, answer)).verdict


@pytest.mark.parametrize("gold, form", FORMS)
def test_what_has_no_finite_value_equals_no_number_on_either_side(gold, form):
    for value in NO_VALUE:
        answer = form.replace("VALUE", value)
        assert without_library(gold, answer) != CORRECT, answer
        assert without_library(answer, gold) != CORRECT, answer


@pytest.mark.parametrize("gold, form", LIBRARY_FORMS)
def test_nor_does_a_sum_or_limit_or_integral_that_diverges(grader, gold, form):
    for value in NO_VALUE_OF_LIBRARY:
        answer = form.replace("VALUE", value)
        assert grader.compare(gold, answer).verdict != CORRECT, answer
        assert grader.compare(answer, gold).verdict != CORRECT, answer


@pytest.mark.parametrize(
    "gold, answer, verdict",
    [
        ("\\infty", "+\\infty", CORRECT),
        ("\\infty", "\\infty+5", CORRECT),
        ("\\infty", "-(-\\infty)", CORRECT),
        ("-\\infty", "-2\\infty", CORRECT),
        ("\\infty", "-\\infty", WRONG),
        ("-\\infty", "oo", WRONG),
        ("\\infty", "1/0", WRONG),
        ("\\infty", "\\infty-\\infty", WRONG),
        ("\\infty", "10^{100}", WRONG),
        ("\\infty", "0^0", WRONG),
        ("\\infty", "\\lim_{x\\to0}\\frac{1}{x^2}", CORRECT),
        ("\\infty", "\\lim_{x\\to0}\\frac{1}{x}", WRONG),
        ("\\infty", "\\lim_{x\\to0^+}\\frac{1}{x}", CORRECT),
        ("-\\infty", "\\lim_{x\\to0^{-}}\\frac{1}{x}", CORRECT),
        ("\\infty", "\\sum_{n=1}^\\infty n", CORRECT),
        ("-\\infty", "\\sum_{n=1}^\\infty n", WRONG),
        ("\\infty", "\\int_0^1 x\\,dx", WRONG),
        ("\\infty", "\\lim_{x\\to0}x", WRONG),
        ("0", "\\frac{1}{\\sum_{n=1}^\\infty n}", WRONG),
        ("0", "\\tan\\pi", CORRECT),
        ("10^{-40}", "\\frac{1}{10^{40}}", CORRECT),
    ],
)
def test_infinity_equals_infinity_of_the_same_sign(grader, gold, answer, verdict):
    assert grader.compare(gold, answer).verdict == verdict


def test_equal_texts_of_any_length_are_equal(grader):
    gold = "x+" * 700 + "1"
    assert grader.grade(f"\\boxed{{{gold}}}", gold).verdict == CORRECT
    assert grader.grade(f"\\boxed{{{gold}+1}}", gold).verdict != CORRECT


@pytest.mark.parametrize("gold", ["NaN", "nan", "Infinity", "-Infinity", "inf"])
def test_a_float_that_is_no_number_is_no_gold_answer(grader, gold):
    assert defects(gold) == ["not a number"]
    assert grader.grade(f"\\boxed{{{gold}}}", gold).verdict == UNGRADABLE
    assert self_check([("a", gold)]).n_passed == 0


def test_verifierbench_is_read_from_a_file(tmp_path):
    row = {"question": "1+1?", "gold_answer": "2", "llm_response": "\\boxed{2}", "gold_judgment": "A", "domain": "Math"}
    rows = [
        row,
        {**row, "llm_response": "\\boxed{3}", "gold_judgment": "B"},
        {**row, "llm_response": "\\boxed{2}", "gold_judgment": "B"},
        {**row, "llm_response": "", "gold_judgment": "C"},
        {**row, "domain": "Knowledge"},
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    read = grader_sets.read_verifierbench(tmp_path / "list.json", "math")
    assert read == rows[:4] == grader_sets.read_verifierbench(tmp_path / "lines.json")[:4]
    figures = grader_sets.verifierbench(read, lambda response, gold: (decide(gold, response[7:-1] or None)).verdict)
    assert figures["verifierbench_accuracy"] == 0.75
    assert figures["verifierbench_f1_A"] == figures["verifierbench_f1_B"] == pytest.approx(2 / 3)
    assert figures["verifierbench_f1_C"] == 1 and figures["verifierbench_f1"] == pytest.approx(7 / 9)
    (tmp_path / "bad.json").write_text(json.dumps([{**row, "gold_judgment": "D"}]))
    with pytest.raises(ValueError, match=r"row 1: gold_judgment is 'D', not A, B or C"):
        grader_sets.read_verifierbench(tmp_path / "bad.json")
