r"""Ways in which people and data sets write one and the same question, for bench_pool --contamination.

Each function takes a question and returns it as another copy of the data has it. `other_numbers` makes another question
of it. They share no code with the filter that is measured.
"""

from __future__ import annotations

import html
import random
import re
from collections.abc import Callable

_MATHS = re.compile(r"\$\$.*?\$\$|\$(?:[^$\\]|\\.)*\$|\\\[.*?\\\]|\\\(.*?\\\)", re.DOTALL)
_ASY = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)


def in_maths(text: str, change: Callable[[str], str]) -> str:
    """Change the formulas of a text, not its words and figures."""
    kept = {}

    def keep(figure: re.Match) -> str:
        kept[f"\0{len(kept)}\0"] = figure[0]
        return f"\0{len(kept) - 1}\0"

    text = _MATHS.sub(lambda found: change(found[0]), _ASY.sub(keep, text))
    for mark, figure in kept.items():
        text = text.replace(mark, figure)
    return text


def argument(text: str, start: int) -> tuple[str, int]:
    """The argument of a LaTeX command that begins at `start`, without braces, and the place behind it."""
    while text[start : start + 1].isspace():
        start += 1
    if text[start : start + 1] != "{":
        found = re.compile(r"\\(?:[a-zA-Z]+|.)|.?", re.DOTALL).match(text, start)
        end = found.end() if found else start
        return text[start:end], end
    depth = 0
    for end in range(start, len(text)):
        escaped = text[end - 1 : end] == "\\"
        depth += {"{": 1, "}": -1}.get(text[end], 0) * (not escaped)
        if depth == 0:
            return text[start + 1 : end], end + 1
    return text[start + 1 :], len(text)


def with_arguments(text: str, command: str, n: int, write: Callable[..., str]) -> str:
    """Replace a command with n arguments by what `write` makes of the arguments."""
    pattern = re.compile(rf"\\(?:{command})(?![a-zA-Z])")
    while found := pattern.search(text):
        end, arguments = found.end(), []
        for _ in range(n):
            value, end = argument(text, end)
            arguments.append(value)
        text = text[: found.start()] + write(*arguments) + text[end:]
    return text


def labelled(text: str) -> str:
    return f"Problem: {text}\n\nAnswer:"


def instructed(text: str) -> str:
    before = "Solve the following math problem step by step. The last line of your response should be the answer."
    return f"{before}\n\n{text}\n\nRemember to put your final answer within \\boxed{{}}."


def unpunctuated(text: str) -> str:
    """All in lower case, without the last full stop or question mark, on one line."""
    text = " ".join(text.split())
    return re.sub(r"\s*[.?!:]+(\$*)$", r"\1", text).lower() if "[asy]" not in text else text.rstrip(".")


def restyled(text: str) -> str:
    r"""Other variants of commands: \dfrac for \frac and back, no \left and \right, \leq for \le, \[0.5ex] and so on."""

    def change(maths: str) -> str:
        maths = re.sub(r"\\(?:left|right)(?![a-z])\s*\.?", "", maths)
        swap = {"frac": "dfrac", "dfrac": "frac", "tfrac": "frac", "binom": "dbinom", "dbinom": "binom"}
        swap |= {"le": "leq", "leq": "le", "ge": "geq", "geq": "ge", "ne": "neq", "neq": "ne", "ldots": "dots"}
        swap |= {"cdots": "dotsb", "cdot": "times", "times": "cdot", "text": "mathrm", "mbox": "text"}
        maths = re.sub(r"\\([a-z]+)", lambda c: "\\" + swap.get(c[1], c[1]), maths)
        return re.sub(r"\\[,;:!]|~", " ", maths)

    return in_maths(text, change)


def redelimited(text: str) -> str:
    r"""\( \) for $ $, $$ $$ for \[ \], thin spaces, each displayed formula on a line of its own."""

    def change(maths: str) -> str:
        if maths.startswith("\\["):
            return f"\n$$\n{maths[2:-2].strip()}\n$$\n"
        if maths.startswith("$$"):
            return f"\\[ {maths[2:-2].strip()} \\]"
        return f"\\({maths[1:-1]}\\)" if maths.startswith("$") else f"${maths[2:-2]}$"

    return in_maths(text, change)


def spaced(text: str) -> str:
    """Formulas as programs that read pages print them: blanks between all tokens, braces around all exponents."""

    def change(maths: str) -> str:
        n = 2 if maths.startswith(("$$", "\\")) else 1  # characters of a delimiter
        begin, inner, end = maths[:n], maths[n:-n], maths[-n:]
        inner = re.sub(r"([\^_])\s*(\w)(?![\w}])", r"\1{\2}", inner)
        inner = re.sub(r"\\text\s*\{", r"\\text { ", inner)
        tokens = re.findall(r"\\begin\{.*?\}|\\end\{.*?\}|\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|\S", inner, re.DOTALL)
        words = [m for m in re.findall(r"\\(?:text|mbox|mathrm|operatorname)\s*\{", inner)]
        return maths if words else f"{begin} {' '.join(tokens)} {end}"

    return "  ".join(in_maths(text, change).split(" "))


_CHARACTERS = {
    "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "times": "×", "cdot": "·", "div": "÷",
    "pm": "±", "infty": "∞", "pi": "π", "theta": "θ", "alpha": "α", "beta": "β", "omega": "ω", "angle": "∠",
    "triangle": "△", "in": "∈", "cup": "∪", "cap": "∩", "to": "→", "ldots": "…", "dots": "…", "cdots": "…",
    "circ": "°", "sum": "∑", "equiv": "≡",
}  # fmt: skip
_SQUARES = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def as_characters(text: str) -> str:
    """Formulas without LaTeX: 3/4, x², √2, ≤, π, 45°; typographic quotes and dashes."""

    def change(maths: str) -> str:
        space = " " if maths.startswith(("$$", "\\[")) else ""
        maths = re.sub(r"^(?:\$\$?|\\\[|\\\()|(?:\$\$?|\\\]|\\\))$", space, maths)
        maths = re.sub(r"\\(?:left|right|displaystyle)(?![a-z])\.?|\\[,;:!]|\\q?quad", " ", maths)
        maths = with_arguments(maths, "[dtc]?frac", 2, lambda a, b: f" {_bracketed(a)}/{_bracketed(b)}")
        maths = with_arguments(maths, "sqrt(?!\\s*\\[)", 1, lambda a: f"√{_bracketed(a)}")
        maths = with_arguments(maths, "text|mbox|mathrm|textbf|mathbf|operatorname", 1, str)
        maths = re.sub(r"\^\s*\{?\s*\\circ\s*\}?", "°", maths)
        maths = re.sub(r"\^(?:\{(\d+)\}|(\d))", lambda m: (m[1] or m[2]).translate(_SQUARES), maths)
        maths = re.sub(r"\\([a-z]+)", lambda c: _CHARACTERS.get(c[1], c[0]), maths)
        return re.sub(r"\\([%$#&_])", r"\1", maths).replace("-", "−")

    text = in_maths(text, change).replace("'", "’").replace(" -- ", " – ")
    return re.sub(r'"([^"\n]*)"', r"“\1”", text) if "[asy]" not in text else text


def _bracketed(value: str) -> str:
    return value if re.fullmatch(r"\w|\d+|\\[a-z]+", value) else f"({value})"


def old_tex(text: str) -> str:
    r"""{a \over b}, {n \choose k}, 1{,}000, \mbox, and \rm as in plain TeX."""

    def change(maths: str) -> str:
        maths = with_arguments(maths, "[dt]?frac", 2, lambda a, b: f"{{{a} \\over {b}}}")
        maths = with_arguments(maths, "[dt]?binom", 2, lambda a, b: f"{{{a} \\choose {b}}}")
        maths = re.sub(r"(?<![\d.,}])(\d{1,3})(\d{3})(?![\d,{])", r"\1{,}\2", maths)
        return maths.replace("\\text{", "\\mbox{").replace("\\%", "\\,\\%")

    return in_maths(text, change)


def on_the_web(text: str) -> str:
    """A page in Markdown or HTML: a bold label with a number, entities, line breaks, zero-width spaces."""
    text = html.escape(text, quote=False) if "[asy]" not in text else text
    return f"**Problem 12.** {text}".replace(". ", ".\u200b \n") + "\n\n*(Source: a contest)*"


REWRITINGS: dict[str, Callable[[str], str]] = {
    "a label before, Answer: behind": labelled,
    "instructions around": lambda text: instructed(restyled(text)),
    "lower case, no final mark": unpunctuated,
    "other commands": restyled,
    "other delimiters, a label": lambda text: "Question: " + redelimited(text),
    "blanks in formulas": spaced,
    "characters for LaTeX": as_characters,
    "plain TeX on a web page": lambda text: on_the_web(old_tex(text)),
}


def other_numbers(text: str, seed: int) -> str:
    """The same wording with other numbers of as many digits: another question."""
    rng = random.Random(seed)

    def change(number: re.Match) -> str:
        low = 10 ** (len(number[0]) - 1)
        choices = [n for n in range(low + (low == 1), min(10 * low, low + 900)) if n != int(number[0])]
        return str(rng.choice(choices))

    return re.sub(r"(?<![\d.])\d{1,6}(?![\d.])", change, text)
