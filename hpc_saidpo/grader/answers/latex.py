"""LaTeX, Unicode and plain-text answers -> one plain form, and its tokens."""

from __future__ import annotations

import re

from . import typed
from .extract import MAX_ANSWER_CHARS
from .functions import FUNCTION_NAMES

# Characters that mean LaTeX commands; the rest of Unicode is not changed.
_UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\neq ", "≈": r"\approx ", "∞": r"\infty ", "π": r"\pi ", "√": r"\sqrt ", "°": r"\degree ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "θ": r"\theta ", "α": r"\alpha ",
    "β": r"\beta ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "²": "^{2}", "³": "^{3}", "⁄": "/", "’": "'", "′": "'", "，": ",",
    "（": "(", "）": ")", "：": ":", "；": ";", "。": ".", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "",
    "λ": r"\lambda ", "μ": r"\mu ", "ω": r"\omega ", "φ": r"\phi ", "σ": r"\sigma ",
}  # fmt: skip
_UNICODE_TABLE = str.maketrans(_UNICODE | {"€": "", "£": "", "≡": r"\equiv "})
_SAME_COMMAND = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le", "geq": "ge",
    "leqslant": "le", "geqslant": "ge", "lt": "<", "gt": ">", "ne": "neq", "ast": "*", "cdot": "*", "times": "*",
    "div": "/", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "Vert": "|", "lbrace": "{", "rbrace": "}",
    "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "langle": "(", "rangle": ")", "infin": "infty",
    "varnothing": "emptyset", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "colon": ":",
    "wedge": "land", "vee": "lor", "to": "rightarrow", "epsilon": "varepsilon", "varphi": "phi", "Re": "mathbb{R}",
    "simeq": "approx", "doteq": "approx", "bigcup": "cup", "vartheta": "theta", "imath": "i", "cdotp": "*",
    "reals": "mathbb{R}", "R": "mathbb{R}", "bmod": "mod", "implies": "Rightarrow", "asin": "arcsin",
    "acos": "arccos", "atan": "arctan", "ctg": "cot", "tg": "tan",
}  # fmt: skip
_STYLE = (
    "left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr", "displaystyle",
    "textstyle", "limits", "nolimits", "bf", "rm", "it", "mathstrut", "strut", "middle", "scriptstyle", "hfill",
    "boldsymbol", "phantom", "centering", "nonumber", "notag", "null",
)  # fmt: skip
_TEXT = ("text", "mbox", "textbf", "textit", "textrm", "textnormal", "texttt", "textsc", "textsf", "mathrm", "mathbf",
         "mathit", "mathsf", "operatorname", "hbox", "emph", "bold", "mathnormal", "mathop", "mathtt")  # fmt: skip
_STYLED = re.compile(rf"\\(?:{'|'.join(_STYLE)})(?![a-zA-Z])\*?\s*")
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_SPACE = re.compile(
    r"(?<!\\)\\[ ,;:!]|~|\\q?quad|\\(?:enspace|thinspace|medspace|space|hspace\*?\{[^{}]*\})(?![a-zA-Z])"
)
_TEXT_GROUP = re.compile(rf"\\(?:{'|'.join(_TEXT)})" + r"\*?\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_BARE_FUNCTION = re.compile(rf"(?<![\\a-zA-Z])({'|'.join(FUNCTION_NAMES)}|pi|infty|theta)(?![a-zA-Z])")
_EXPONENT = re.compile(r"(?<![\da-zA-Z\\.])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,4})(?![\d.a-zA-Z])")
_TOKEN = re.compile(r"\\text\{[^{}]*\}|\\[a-zA-Z]+|\\.|\d+\.\d*|\.\d+|\d+|\S", re.ASCII)
_THOUSANDS_SPACE = re.compile(r",\s*\\!\s*|\\,(?=\d{3}(?!\d))(?<=\d\\,)")  # 10,\!080
_BOXED = re.compile(r"\\(?:boxed|fbox)(?=\s*\{)")
_DELIMITER = re.compile(r"\\[()\[\]]|\\\\\s*\[\d+\w+\]")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\circ\s*$|\\degree(?:s)?(?![a-zA-Z])")
_PERCENT = re.compile(r"\\(?:%|pct)")
_FINAL_POINT = re.compile(r"(\d)\.(?=/|\s*$|[)\]}])")  # 1./3
_PREAMBLE = re.compile(
    r"^\s*(?:\\text\{)?\s*(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*:?\s*(?:\}|(?=\S))", re.IGNORECASE
)
_ABOUT = re.compile(r"^\s*(?:\\text\{)?\s*(?:about|approximately|roughly)\s*\}?\s*(?=[-+\d\\])", re.IGNORECASE)
_BRACED = re.compile(r"\{\s*([^{},;]+?)\s*\}")
_ORDINAL = re.compile(r"(\d)\s*(?:\^\s*\{?\s*)?(?:\\text\{(?:st|nd|rd|th)\}|(?:st|nd|rd|th)(?![a-zA-Z]))(?:\s*\})?")
_MIXED = re.compile(r"(?<![\d./^_{])(\d+)\s+(\d+)/(\d+)(?![\d./])")
_QUANTITY = re.compile(r"([-+]?[\d.,/]+)\s+([a-zA-Z][a-zA-Z .]*)")
THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")


def clean(answer: str) -> str:
    """The plain form of an answer: no delimiters, sizes, styles or spacing commands; one name for each command.

    Text stays `\\text{...}`, unless it is one letter or the name of a function. An answer of more than
    MAX_ANSWER_CHARS is no mathematics: it only loses blanks.
    """
    if len(answer) > MAX_ANSWER_CHARS:
        return " ".join(answer.split())
    text = typed.unquoted(answer)
    if not text.isascii():
        text = text.translate(_UNICODE_TABLE)
    text = text.replace("{,}", "").replace("{:}", ":")
    if "\\" in text:
        text = _without_layout(text)
    text = text.replace("$", " ").replace("~", " ")
    text = typed.in_latex(typed.unquoted(text))
    text = _named(typed.sizes(_TEXT_GROUP.sub(_text, text))) if "\\" in text else typed.sizes(text)
    text = text.replace("!=", r"\neq ").replace(">=", r"\ge ").replace("<=", r"\le ").replace("\\&", "&")
    text = text.replace("np.", "").replace("math.", "")
    text = _BARE_FUNCTION.sub(r"\\\1 ", text)
    text = _EXPONENT.sub(r"\1*10^{\2}", text)
    text = _FINAL_POINT.sub(r"\1", text) if "." in text else text
    text = _PREAMBLE.sub("", text)
    if about := _ABOUT.match(text):
        text = text[about.end() :]
    text = _ORDINAL.sub(r"\1", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = " ".join(text.strip().removesuffix("\\\\").rstrip(".,;: ").split())
    return braced.group(1) if (braced := _BRACED.fullmatch(text)) else text


def _without_layout(text: str) -> str:
    """The text without boxes, delimiters of formulas, styles, sizes, spaces and thousands separators of LaTeX."""
    text = _BOXED.sub("", _THOUSANDS_SPACE.sub("", text)).replace("\\$", "")
    text = _DELIMITER.sub(lambda m: "\\\\" if m.group().startswith("\\\\") else " ", text)
    return _SPACE.sub(" ", _STYLED.sub(" ", text))


def _named(text: str) -> str:
    """The text with one name for each command."""
    return _PERCENT.sub("%", _COMMAND.sub(_one_name, _DEGREES.sub(r"\\degree ", text)))


def _text(match: re.Match) -> str:
    inner = _TEXT_GROUP.sub(lambda m: m.group(1), match.group(1)).replace("{", "").replace("}", "")
    inner = re.sub(r"\\(?:it|rm|bf)\b", "", inner).strip()
    if re.fullmatch(r"\\?\(?[a-zA-Z]\)?|[-+]?[\d.,/ ]+|\s*|\([-+\d., ]+\)", inner):
        return f" {inner} " if len(inner) != 1 else inner
    if inner.lower() in ("infinity", "positive infinity"):
        return "\\infty "
    if inner in FUNCTION_NAMES:
        return f"\\{inner} "
    if inner.startswith("\\") or re.search(r"[=^_\\<>]", inner):
        return f" {inner} "
    if quantity := _QUANTITY.fullmatch(inner):  # \\text{6 hours}
        return f" {quantity.group(1)} \\text{{{quantity.group(2)}}} "
    return f" \\text{{{inner}}} "


def _one_name(match: re.Match) -> str:
    name = match.group(1)
    if name not in _SAME_COMMAND:
        return match.group()
    new = _SAME_COMMAND[name]
    if new in ("{", "}"):
        return f"\\{new}"
    return f"\\{new}" if new[0].isalpha() and new not in ("i",) else new


def tokens(plain: str) -> list[str]:
    """Commands, numbers, single letters and signs of a plain form."""
    return _TOKEN.findall(plain)


def depth(plain: str) -> int:
    """Depth of nested brackets in a plain form."""
    deepest = now = 0
    for c in plain:
        now += (c in "([{") - (c in ")]}")
        deepest = max(deepest, now)
    return deepest
