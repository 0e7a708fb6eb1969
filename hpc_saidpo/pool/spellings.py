"""Tables of `canonical`: LaTeX commands, characters and words with the same meaning, and their one spelling.

A value is a word, a symbol, several of them with blanks between, or "" for a token without meaning of its own.
"""

from __future__ import annotations

import unicodedata

# LaTeX commands, in lower case and without the backslash. A command that is not listed becomes the word of its name.
COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "nicefrac", "sfrac", "frac"), r"\frac"),
    **dict.fromkeys(("binom", "dbinom", "tbinom"), r"\binom"),
    "over": r"\over",
    "choose": r"\choose",
    **dict.fromkeys(("cdot", "times", "ast"), "*"),
    "div": "/",
    **dict.fromkeys(("le", "leq", "leqslant"), "<="),
    **dict.fromkeys(("ge", "geq", "geqslant"), ">="),
    **dict.fromkeys(("ne", "neq"), "neq"),
    "lt": "<",
    "gt": ">",
    "to": "to",
    **dict.fromkeys(("rightarrow", "longrightarrow", "implies", "mapsto"), "to"),
    **dict.fromkeys(("leftrightarrow", "longleftrightarrow"), "iff"),
    **dict.fromkeys(("vert", "lvert", "rvert", "mid"), "|"),
    **dict.fromkeys(("lbrace", "rbrace"), ""),
    **dict.fromkeys(("lbrack",), "["),
    **dict.fromkeys(("rbrack",), "]"),
    **dict.fromkeys(("pmod", "bmod", "mod"), "mod"),
    **dict.fromkeys(("wedge", "land"), "land"),
    **dict.fromkeys(("vee", "lor"), "lor"),
    **dict.fromkeys(("emptyset", "varnothing"), "emptyset"),
    "ell": "l",
    "prime": "prime",
    "degree": "deg",
    "varphi": "phi",
    "varepsilon": "epsilon",
    "vartheta": "theta",
    **dict.fromkeys(("setminus", "backslash"), "setminus"),
    **dict.fromkeys(("ldots", "cdots", "dots", "dotsb", "dotsc", "dotsm", "dotsi", "dotso", "vdots", "ddots"), ""),
    **dict.fromkeys(("quad", "qquad", "enspace", "thinspace", "hfill", "noindent", "par", "newline", "item"), ""),
    **dict.fromkeys(("displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "colon"), ""),
    **dict.fromkeys(("left", "right", "middle", "big", "bigl", "bigr", "bigg", "biggl", "biggr", "bigm"), ""),
    **dict.fromkeys(("bf", "rm", "it", "em", "sf", "tt", "cal", "centering", "hline", "lq", "rq"), ""),
}
# Commands that change the look of their argument only.
LOOKS = {
    "text", "mbox", "hbox", "textrm", "textbf", "textit", "textsf", "texttt", "textnormal", "emph", "underline",
    "mathrm", "mathbf", "mathit", "mathsf", "mathtt", "mathcal", "mathbb", "mathfrak", "mathscr", "mathnormal",
    "operatorname", "operatorname*", "boldsymbol", "bm", "pmb", "boxed", "fbox", "ensuremath", "mathop", "mathrel",
    "mathbin", "mathopen", "mathclose",
}  # fmt: skip
# Verbs that request a value, and no particular form of it.
REQUESTS = frozenset({"calculate", "compute", "determine", "evaluate", "find", "give", "state"})
# Commands before whose braces an argument is, not a mere group.
ARGUMENTS = {
    "frac", "dfrac", "tfrac", "cfrac", "nicefrac", "sfrac", "binom", "dbinom", "tbinom", "sqrt", "pmod", "overline",
    "bar", "vec", "hat", "widehat", "tilde", "widetilde", "dot", "ddot", "overrightarrow", "overleftrightarrow",
    "overarc", "overbrace", "underbrace", "stackrel", "overset", "underset", "boxed",
}  # fmt: skip
# Environments; the brackets of a matrix are those that its name means.
OPENING = {"pmatrix": "(", "bmatrix": "[", "vmatrix": "|"}
CLOSING = {"pmatrix": ")", "bmatrix": "]", "vmatrix": "|"}
SYMBOLS = {
    **dict.fromkeys(("<=", "=<"), "<="),
    ">=": ">=",
    "!=": "neq",
    "->": "to",
    "=>": "to",
    "==": "=",
    "+-": "pm",
    "**": "^",
}
# Symbols without meaning of their own: punctuation, the marks of mathematics, markup.
SILENT = frozenset("\"$&~_#@`\\'")
# Punctuation: of no meaning either, but letters on both sides of it are no product.
PAUSES = frozenset(".,;:?")

_CHARACTERS = {
    "×": "*", "·": "*", "⋅": "*", "∙": "*", "∗": "*", "÷": "/", "∕": "/", "⁄": "/",
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "―": "-",
    "≤": "<=", "⩽": "<=", "≦": "<=", "≥": ">=", "⩾": ">=", "≧": ">=", "≠": r"\neq ", "±": r"\pm ", "∓": r"\mp ",
    "≈": r"\approx ", "≡": r"\equiv ", "≅": r"\cong ", "∼": r"\sim ", "∝": r"\propto ", "∞": r"\infty ",
    "√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ",
    "∂": r"\partial ", "∇": r"\nabla ", "∈": r"\in ", "∉": r"\notin ", "∪": r"\cup ", "∩": r"\cap ",
    "⊂": r"\subset ", "⊆": r"\subseteq ", "∅": r"\emptyset ", "∠": r"\angle ", "△": r"\triangle ", "⊥": r"\perp ",
    "∥": r"\parallel ", "→": r"\to ", "⟶": r"\to ", "⇒": r"\to ", "⟹": r"\to ", "⇔": r"\iff ", "↔": r"\iff ",
    "∀": r"\forall ", "∃": r"\exists ", "¬": r"\neg ", "∧": r"\land ", "∨": r"\lor ", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ", "∘": r"\circ ",
    "°": r"^\circ ", "º": r"^\circ ", "′": r"\prime ", "″": r"\prime\prime ", "∣": "|", "∖": r"\setminus ",
    "‘": "'", "’": "'", "ʼ": "'", "´": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "…": "...",
    "•": " ", "ı": "i", "½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅛": " 1/8",
}  # fmt: skip
_RAISED = {c: unicodedata.normalize("NFKC", c) for c in "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ"}
_INVISIBLE = "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u200e\u200f\ufe0f"
_GREEK = {
    chr(c): f"\\{unicodedata.name(chr(c)).split()[-1].lower()} "
    for c in (*range(0x391, 0x3AA), *range(0x3B1, 0x3CA))
    if unicodedata.name(chr(c), "").startswith("GREEK")
}
RAISED = frozenset(_RAISED)
CHARACTERS = str.maketrans({**_CHARACTERS, **_RAISED, **dict.fromkeys(_INVISIBLE, ""), **_GREEK})
