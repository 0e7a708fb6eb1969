"""Texts that differ in notation only have one canonical form; texts that ask something else do not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_saidpo.pool.canonical import canonical

SAME = {
    "variants of a command": [r"$\dfrac{1}{2}$", r"$\tfrac{1}{2}$", r"$\frac{1}{2}$", r"$\frac12$", r"$\frac 1 2$"],
    "fractions": [r"\frac{a+b}{c}", r"{a+b \over c}", "(a+b)/c", r"\left(a+b\right)/c"],
    "fractions in an exponent": [r"x^{\frac{1}{2}}", r"x^\frac12", "x^{1/2}", "x^(1/2)", r"x^{1 \over 2}"],
    "binomials": [r"\dbinom{16}{5}", r"\binom{16}{5}", r"{16 \choose 5}", r"\tbinom{16}5"],
    "delimiters": ["Find $x^2$", r"Find \(x^2\)", r"Find \[x^2\]", "Find $$x^2$$", "Find x^2"],
    "sizes": [
        r"\left(x+1\right)^2",
        r"\bigl(x+1\bigr)^2",
        "(x+1)^2",
        r"\displaystyle(x+1)^2",
        r"\left( x + 1 \right)^{2}",
    ],
    "relations": [r"a \le b", r"a \leq b", r"a\leqslant b", "a ≤ b", "a <= b"],
    "other relations": [r"a \ne b", r"a\neq b", "a ≠ b", "a != b"],
    "products": [r"3 \cdot 4", r"3\times4", "3 × 4", "3 * 4", "3·4"],
    "minus": ["a - b", "a − b", "a – b", "a-b"],
    "powers": ["x^2", "x^{2}", "x²", "x**2", "x<sup>2</sup>"],
    "degrees": [r"45^\circ", r"45^{\circ}", "45°", "45 degrees"],
    "primes": ["f'(3)", r"f^{\prime}(3)", "f′(3)", r"f^\prime (3)"],
    "Greek letters": [r"\pi r^2", "π r²", "πr^2"],
    "roots": [r"\sqrt{2}+1", r"\sqrt2 + 1", "√2+1", "sqrt(2)+1"],
    "subscripts": ["a_1+b", "a_{1}+b", "a₁ + b"],
    "numbers": ["1000 apples", "1,000 apples", r"$1{,}000$ apples", r"$1\,000$ apples"],
    "decimals": [".5", "0.5"],
    "letters of a product": ["Let $ABC$ be", "Let $A B C$ be", r"Let $A\,B\,C$ be"],
    "text in formulas": [r"5\text{ cubic cm}", r"5\mathrm{~cubic~cm}", "5 cubic cm", r"5 \mbox{ cubic cm}"],
    "moduli": [r"n\equiv 2\pmod{7}", r"$n \equiv 2 (\text{mod } 7)$", "n≡2 (mod 7)"],
    "matrices": [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left(\begin{array}{cc}1 & 2 \\ 3 & 4\end{array}\right)"],
    "alignment": [r"\begin{align*}x &= 1, \\ y &= 2\end{align*}", "x = 1, y = 2"],
    "sets": [r"\{x \mid x > 0\}", r"\{x | x>0\}", "{x ∣ x > 0}"],
    "redundant parentheses": ["Calculate ( 9 * 7 ).", "Calculate ((9 * 7)).", "Calculate 9 * 7"],
    "parentheses around one token": ["(x) + (3)", "x + 3"],
    "percent": [r"20\%", "20%", r"20 \, \%"],
    "case": ["What is X?", "what is x"],
    "final marks": ["What is 3?", "What is 3", "What is 3.", "What is 3 ?", "What is 3:"],
    "quotes": ['say "yes"', "say “yes”", "say ``yes''"],
    "spaces": ["a  b\n c", "a b c", "a\tb\u00a0c", "a\u200b b c"],
    "HTML": ["x &lt; 3 &amp; y", "x < 3 & y"],
    "labels": ["Problem 3. Find 2", "**Problem 3.** Find 2", "Question: find 2", "Exercise 1.2: Find 2", "Q7) Find 2"],
    "markdown": ["Find **all** roots", "Find *all* roots", "Find all roots"],
    "LaTeX that was escaped twice": [r"\\frac{1}{2} \\cdot 3", r"\frac{1}{2} \cdot 3"],
    "full width": ["What is （2，3）？", "What is (2, 3)?"],
}
DIFFERENT = [
    (r"\sqrt{2}+1", r"\sqrt{2+1}"), ("e^{x+1}", "e^x+1"), ("2 + 3", "2 - 3"), ("x + y", "y + x"), ("a_{n+1}", "a_n+1"),
    ("gap 1 23", "gap 12 3"), ("5!", "5"), ("f'(3)", "f(3)"), ("[0,1]", "(0,1)"), (r"\frac{a+b}{c}", r"a+\frac{b}{c}"),
    ("a < b", r"a \le b"), ("(a+b)c", "a+bc"), ("x, y", "xy"), (r"\sin x", r"\cos x"), ("1.5", "15"), ("20%", "20"),
]  # fmt: skip


@pytest.mark.parametrize("texts", SAME.values(), ids=SAME)
def test_one_form_of_all_notations(texts):
    assert len({canonical(text) for text in texts}) == 1, [canonical(text) for text in texts]


@pytest.mark.parametrize("one, other", DIFFERENT)
def test_other_questions_have_other_forms(one, other):
    assert canonical(one) != canonical(other)


def test_a_form_is_readable_tokens():
    text = r"**Problem 3.** Compute $\dfrac{x^2 + 1{,}000}{\sqrt{3}}$, if $0 \leq x < \pi$."
    assert canonical(text) == "compute ( x ^ 2 + 1 000 ) / ( sqrt 3 ) if 0 <= x < pi"
    assert canonical("") == canonical(" $.$ \u200b") == ""


PIECES = [
    r"\frac", r"\dfrac", "{", "}", "(", ")", "1", "23", "1000", ".5", "x", "y", "ab", "the", "is", "=", "+", "-", "*",
    "**", " ", "\n", ",", ".", "?", "'", "$", r"\(", r"\left", r"\over", r"\choose", r"\binom", r"\text", "^", "_",
    r"\circ", r"\prime", r"\begin{align}", r"\pmod", "mod", "Problem 3.", "problem", ":", "&lt;", "<b>", "`", "``",
    "''", "π", "²", "½", "é", "≤", "|", "!", "%", "#", "degrees", "[", "]", r"\\", "~", r"\{", r"\begin{pmatrix}",
    r"\end{pmatrix}", r"\sqrt",
]  # fmt: skip
TEXTS = st.one_of(st.text(), *(st.lists(st.sampled_from(PIECES)).map(glue.join) for glue in ("", " ")))


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_the_form_of_a_form_is_itself(text):
    form = canonical(text)
    assert canonical(form) == form and form == " ".join(form.split())


@settings(max_examples=100, deadline=None)
@given(st.text("abc 123+-<=($)"), st.sampled_from(["  {}  ", "\n{}\n", "{} .", "$\\,{}$", "{}?"]))
def test_marks_around_a_text_do_not_count(text, around):
    assert canonical(around.replace("{}", f" {text} ")) == canonical(f" {text} ")
