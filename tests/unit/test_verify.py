"""Verdicts from text, form and values; nothing here needs the grading process."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_saidpo.grader.answers import latex
from hpc_saidpo.grader.answers.exact import normalise, number
from hpc_saidpo.grader.answers.extract import candidates, extract
from hpc_saidpo.grader.answers.fast import decide, thorough
from hpc_saidpo.grader.answers.gold import defects
from hpc_saidpo.grader.answers.leaves import all_of, any_of
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG

SAME = [
    # numbers
    ("1/2", "0.50"), ("1234", "1,234"), ("10000", "10{,}000"), ("10080", "10,\\!080"), ("-3", "−3"), ("73", "(073)"),
    ("2\\frac58", "21/8"), ("2\\frac58", "2 5/8"), ("-\\frac{1}{2}", "\\frac{-1}{2}"), ("-1./3", "-\\frac13"),
    ("4.5e33", "4.5\\times10^{33}"), ("1e-5", "0.00001"), ("2^{10}", "1024"), ("10!", "3628800"),
    ("12", "\\text{twelve}"), ("{x>3}", "(3,\\infty)"),
    ("\\frac{1}{12}", "0.0833333333333333"), ("0.\\overline{3}", "\\frac13"), ("\\log_2 8", "3"), ("7", "3+4=7"),
    # units, percent, money
    ("20 $cm^{2}$", "20"), ("36\\sqrt7cm^{3}", "36\\sqrt{7}\\text{ cm}^3"), ("10\\text{ units}", "10"),
    ("60^\\circ", "60"),
    ("\\mathrm{V}=100.5 \\mathrm{~cm}^3", "100.5"), ("\\$32,348", "32348"), ("28\\%", "28 percent"),
    ("\\frac34", "75\\%"),
    ("5 \\frac{1}{4} \\mathrm{~min}", "5.25\\text{ min}"), ("4^{\\text{th}}", "4"), ("\\text{6 hours}", "6"),
    # expressions
    ("\\frac{1}{\\sqrt2}c", "\\frac{c\\sqrt2}{2}"), ("\\sqrt2\\cos(2t-\\pi/4)", "\\cos 2t+\\sin 2t"),
    ("\\ln|t^2+t+3|+C", "\\ln(t^2+t+3)+C"), ("e^{i\\pi}", "-1"), ("C_{400}^{40}", "\\binom{400}{40}"),
    ("ab+ab^{2}+b", "b(a+ab+1)"), ("\\frac{x+1}{x-1}", "1+\\frac{2}{x-1}"), ("\\sin^2 x+\\cos^2 x", "1"),
    ("3^{2/3}", "\\sqrt[3]{9}"), ("\\sin 60^\\circ", "\\frac{\\sqrt3}{2}"), ("(r+5)^2", "(r+5)(r+5)"),
    ("\\lfloor n/2 \\rfloor", "\\lfloor \\frac{n}{2} \\rfloor"), ("\\tan^2(y)+1", "\\sec^2(y)"),
    # equations and names
    ("x=5", "5"), ("5", "x=5"), ("C(h)=4h+4", "4(h+1)"), ("y=2x+1", "2x-y+1=0"),
    ("f(x)=1", "f(x)=1 \\text{ for all } x"),
    ("(p,q,r)=(3,2,7)", "(3,2,7)"), ("a=1, b=2", "b=2, a=1"), ("x=2,y=3", "(2,3)"), ("|AB|=1", "1"),
    # lists, sets, tuples, signs
    ("5 or 9", "9 \\text{ or } 5"), ("x=-1,0", "x=0 \\text{ or } x=-1"), ("\\{2,3,5\\}", "5,2,3"), ("1,-2", "-2, 1"),
    ("1,\\frac{3\\pm\\sqrt{21}}{2}", "\\frac{3-\\sqrt{21}}{2}, 1, \\frac{3+\\sqrt{21}}{2}"),
    ("\\pm 2\\sqrt6", "\\pm\\sqrt{24}"),
    ("(3,2),(-3,2),(3,-2),(-3,-2)", "(\\pm3,\\pm2)"), ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"), ("(0;1;0)", "(0,1,0)"),
    # intervals and inequalities
    ("(-\\infty,-3)", "x<-3"), ("[2,+\\infty)", "[2,\\infty)"),
    ("(-\\infty,0)\\cup\\{1\\}.", "\\{1\\}\\cup(-\\infty,0)"),
    ("(-\\infty,-3)\\cup(\\frac12,2)", "x<-3 \\text{ or } \\frac12<x<2"), ("\\{x|-2\\leq x<1\\}", "[-2,1)"),
    ("b > a > c", "c<a<b"),
    ("(-\\infty,\\infty)", "\\mathbb{R}"), ("x \\neq 5", "(-\\infty,5)\\cup(5,\\infty)"),
    ("x \\in [-2,7]", "-2\\le x\\le7"),
    ("|x|<3", "(-3,3)"), ("1\\le |z|\\le 2", "[-2,-1]\\cup[1,2]"), ("x\\ne 0", "\\mathbb{R}\\setminus\\{0\\}"),
    ("x<2\\text{ or }x>5", "x>5 \\cup x<2"),
    # names that do not matter, and words around
    ("(x,y)=(1,2)", "x=1, y=2"), ("\\frac{\\pi}{2}+k\\pi", "\\frac{\\pi}{2}+\\pi n"), ("3", "3\\pmod{7}"),
    ("\\log 2", "\\ln 2"),
    ("\\frac{dy}{dx}=2x", "2x"), ("14", "\\text{The answer is }14"), ("10\\text{ cm}", "100\\text{ mm}"),
    # matrices and vectors
    ("\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}", "\\frac13\\begin{bmatrix} -1\\\\2\\end{bmatrix}"),
    ("(x/r, y/r)", "\\frac1r(x,y)"), ("(1,2)", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    # letters, bases, times, words
    ("A", "\\text{(A)}"), ("\\text{(B)}", "B. 14"), ("52_8", "52_{8}"), ("52_8", "52"), ("5am", "5:00 a.m."),
    ("\\text{ellipse}", "\\text{an ellipse}"), ("Quadrant I", "\\text{first quadrant}"),
    ("no solution", "\\emptyset"),
    ("\\text{a necessary but not a sufficient condition}", "necessary but not sufficient"), ("\\text{east}", "East"),
]  # fmt: skip
DIFFERENT = [
    ("|x|<3", "(-3,3]"), ("\\mathbb{R}\\setminus\\{0\\}", "\\mathbb{R}"), ("AB=4,CD=5", "AB=5,CD=4"), ("5", "x^2=25"),
    ("\\frac{\\pi}{2}+k\\pi", "\\frac{\\pi}{2}+2\\pi n"), ("10\\text{ cm}", "10\\text{ mm}"),
    ("x\\equiv 3\\pmod 7", "4"),
    ("12345", "12346"), ("2^{100}", "1267650600228229401496703205377"), ("\\frac13", "0.33"), ("\\pi", "3.14"),
    ("0.25", "25"),
    ("0.0000001", "0.0000002"), ("\\frac1{2004!}", "\\frac1{2006!}"), ("10^{-9}", "0"),
    ("6.626\\times10^{-34}", "6.626\\times10^{-33}"),
    ("0", "0x3d2d"), ("0", "0 roots and 3 more"), ("7", "7!"), ("2\\frac58", "10/8"), ("3", "3i"), ("5", "|5-x|"),
    ("20\\%", "0.02"),
    ("5", "2x+1=5"), ("0", "2x+3y-z-3=0"), ("x^2+1=0", "x^2+4=0"), ("\\log_3(27)=3", "\\log_3(27)=4"),
    ("e^x=0", "e^x=-1"),
    ("(1,2)", "[1,2]"), ("(1,2)", "(2,1)"), ("(3,1)", "\\{1,3\\}"), ("[1,2]", "\\{1,2\\}"), ("x>3", "x\\ge 3"),
    ("a<b", "b<a"),
    ("2,-1,-18", "2"), ("5", "0 \\text{ or } 5"), ("\\pm 3", "3"), ("3", "\\pm 3"), ("1,2", "1,2,3"),
    ("|x|", "x"), ("x^2", "x^3"), ("mn-\\lfloor m/2\\rfloor", "mn-\\lfloor m/8\\rfloor"), ("2x+3y=6", "2x+3y=7"),
    ("f(x)=x+1", "f(x)=x-1"), ("2f(x)", "f(2x)"), ("5", "1:2:3"),
    ("\\{x|x=3k,k\\in\\mathbb{Z}\\}", "\\{x|x=3k+1,k\\in\\mathbb{Z}\\}"), ("3 \\text{ m}", "3 \\text{ cm}"),
    ("4x", "4"),
    ("52_8", "52_9"), ("1:58 am", "1:58 pm"), ("8:34", "4:17"), ("A", "B"), ("\\text{no}", "on"), ("east", "west"),
    ("\\text{infinitely many}", "\\text{none}"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}"),
]  # fmt: skip


def verdict(gold, answer):
    found = decide(gold, answer) or thorough(gold, answer)
    assert found.reason
    return found.verdict


@pytest.mark.parametrize("gold, answer", SAME)
def test_the_same_mathematics_is_correct(gold, answer):
    assert verdict(gold, answer) == CORRECT


@pytest.mark.parametrize("gold, answer", DIFFERENT)
def test_other_mathematics_is_wrong(gold, answer):
    assert verdict(gold, answer) == WRONG


@pytest.mark.parametrize("gold, answer", SAME + DIFFERENT)
def test_every_gold_answer_is_itself(gold, answer):
    assert verdict(gold, gold) == CORRECT and verdict(answer, answer) == CORRECT


@pytest.mark.parametrize(
    "response, answer",
    [
        ("first \\boxed{1}, then \\boxed{\\sqrt{b^{2}}}.", "\\sqrt{b^{2}}"),
        ("$t = \\boxed{\\frac{1}{3}}$ or $t = \\boxed{-\\frac{5}{2}}$.", "\\frac{1}{3}, -\\frac{5}{2}"),
        ("\\boxed{1}, \\boxed{2} \\text{ and } \\boxed{3}", "1, 2, 3"),
        ("\\boxed{\\text{A \\} B}}", "\\text{A \\} B}"),
        ("it is \\boxed 5", "5"),
        ("<think>\\boxed{9}</think> the answer is 8", "8"),
        ("work\n#### 1,234", "1,234"),
        ("#### 7\nand then 8", "7"),
        ("The answer is: **7**.", "7"),
        ("The final answer is $x=3$. I hope it is correct.", "x=3"),
        ("Final Answer: The volume of $ABC$ is 120. I hope it is correct.", "120"),
        ("The largest $n$ is 34.<|im_end|>", "34"),
        (" 12", "12"),
        ("thus\n\\[\n x = 4\n\\]", "x = 4"),
        ("\\boxed{3", "\\boxed{3"),
        ("So we add.\nSo the total is 42.", "42"),
        ("Therefore, $a+b=\\mathbf{12}$", "\\mathbf{12}"),
        ("Therefore, $2x+1=5$.", "2x+1=5"),
        ("With $a$ = 2 we find $b$ and $x$", "x"),
        ("line one\nline two", None),
        ("", None),
    ],
)
def test_extraction(response, answer):
    assert extract(response) == answer


@pytest.mark.parametrize("text", ["1/0", "-1/0", "(1)/(0)", "\\frac{1}{0}", "2\\frac{1}{0}"])
def test_what_is_divided_by_zero_is_no_number(text):
    assert number(text) is None and number(text.replace("0", "2")) is not None


def test_verdicts_of_parts_are_joined_and_an_unknown_one_stays_unknown():
    assert [any_of(parts) for parts in ([], [False], [False, None], [None, True])] == [False, False, None, True]
    assert [all_of(parts) for parts in ([], [True], [True, None], [None, False])] == [True, True, None, False]


def test_an_empty_gold_answer_is_ungradable_and_no_answer_is_wrong():
    assert decide(" $ $ ", "5").verdict == UNGRADABLE
    assert decide("5", None).verdict == WRONG
    assert decide("5", "9" * 5000).verdict == WRONG


def test_an_unreadable_gold_answer_is_ungradable_unless_it_is_repeated():
    gold = "\\oint_\\gamma \\star"
    assert thorough(gold, "5").verdict == UNGRADABLE
    assert decide(gold, "$\\oint_\\gamma\\star$.").verdict == CORRECT


@pytest.mark.parametrize(
    "gold, found",
    [
        ("", ["empty"]),
        ("$5$ and $6$ and $7$", ["several formulas"]),
        ("If $Z$ is the mean, then the variance is the sum", ["prose"]),
        ("\\boxed{1} or \\boxed{2}", ["several boxes"]),
        ("1\n2", ["newline"]),
        ("x" * 200, ["long"]),
        ("\\text{east}", []),
        ("\\frac{1}{2}", []),
    ],
)
def test_defects_of_gold_answers(gold, found):
    assert defects(gold) == found


@pytest.mark.parametrize("same", [("0.50", "1/2"), ("\\frac12", "\\dfrac{1}{2}"), ("$ (1, 2) $", "\\left(1,2\\right)")])
def test_equal_answers_have_one_form(same):
    assert normalise(same[0]) == normalise(same[1])


def test_normal_forms_keep_what_differs_apart():
    assert len({normalise(a) for a in ("1/2", "1/3", "(1,2)", "[1,2]", "x", "-x")}) == 6


PIECES = r"""
0 1 9 12 3.5 . , ; : + - * / ^ _ = < > ( ) [ ] { } \{ \} | ! % & x e i a \frac \sqrt \pm \le \cup \in \infty \text{and}
\text{cm} \begin{pmatrix} \end{pmatrix} \\ \pi \sin \log \binom \boxed{ or and is answer \mathbb{R} \lfloor \rfloor
\overline \degree \left \right $ #### é √ ² ≤
"""
pieces = st.sampled_from([*PIECES.split(), "\n", "\x00", "\ud800"])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(pieces, max_size=40).map(" ".join), st.lists(pieces, max_size=12).map("".join))
def test_any_text_gets_a_verdict(response, gold):
    for candidate in [*candidates(response), response]:
        assert verdict(gold, candidate) in (CORRECT, WRONG, UNGRADABLE)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=300))
def test_plain_form_is_stable(text):
    assert latex.clean(latex.clean(text)) == latex.clean(latex.clean(latex.clean(text)))
