"""Answers that are typed as plain text or as code -> LaTeX: quotes, `x**2`, `oo`, `[[0, 1], [1, 0]]`, "5 apples"."""

from __future__ import annotations

import re

_QUOTES = (("```", "```"), ("``", "''"), ("`", "`"), ("'", "'"), ('"', '"'), ("“", "”"), ("‘", "’"), ("«", "»"))
_OPENERS = frozenset(opening[0] for opening, _ in _QUOTES)
_BOLD = re.compile(r"(?:^|[\s(:])\*\*(?=\S)")
_POWER = re.compile(r"(?<=[\w)\]}])(?:\*\*| \*\* )(?=[\w.({\\+-])([+-]?(?:\d+(?:\.\d+)?|\w|\([^()]*\)))?")
_LONG_EXPONENT = re.compile(r"\^\s*(\d{2,})(?![\d.])", re.ASCII)
_INFINITY = re.compile(
    r"(?:\b([Pp]ositive|[Nn]egative|plus|minus)\s+)?(?<![\\a-zA-Z])(?:[Ii]nfinity|[Ii]nf|oo)(?![a-zA-Z])"
)
_ARRAY = re.compile(r"(?:(?:np|numpy|sp|sympy)\.)?(?:array|[Mm]atrix|vector)\(\s*(\[.*\])\s*\)")
_INNER = r"((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})+?)"  # braces nested at most two deep
_STACKED = re.compile(rf"\{{\s*{_INNER}\s*\\(choose|over)(?![a-zA-Z])\s*{_INNER}\s*\}}")
_TRANSPOSED = re.compile(r"([\[(][^\[\]()]*[\])])\s*\^\s*\{?\s*(?:T|\\top)\s*\}?")
_OPEN_BELOW = re.compile(r"((?:^|\\cup|\\in)\s*)\]([^\[\](){}]*[,;][^\[\](){}]*)(?=[\[\])])")  # ]a, b[ is (a, b)
_OPEN_ABOVE = re.compile(r"([(\[][^\[\](){}]*[,;][^\[\](){}]*)\[(?=\s*(?:$|\\cup))")
_AREA = re.compile(r"(?<=[\w})])\s+((?:square|cubic|sq\.?|cu\.?)\s+[a-z]+)\.?$")
_QUANTITY = re.compile(
    r"((?:.*=\s*)?\$?[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s+\d+/\d+|/\d+)?)\s+((?!\\)[A-Za-z][A-Za-z.-]*(?:\s+[A-Za-z.]+){0,3})",
    re.ASCII,
)
_THREE_LETTERS = re.compile(r"[b-df-hj-np-tv-z][aeiou][b-df-hj-np-tv-z]|mph|kph|ice|old|per", re.IGNORECASE)
_SIZES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SIZE_NAMES = "|".join(_SIZES)
_SIZE = re.compile(rf"(?<=\d)\s*(?:\\text\{{({_SIZE_NAMES})\b\s*([^{{}}]*)\}}|({_SIZE_NAMES})\b)")
# Words after a number that are no unit: they change its value or its meaning.
_NO_UNITS = frozenset(
    re.findall(
        r"\w+",
        "and or to if is are not but over under plus minus than then else half halves third thirds quarter quarters "
        "fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth "
        "hundredths thousandth thousandths squared cubed factorial choose mod more less fewer dozen dozens infinite "
        "remainder",
    )
) | frozenset(_SIZES)
_PER = frozenset(("per", "of", "old", "in"))  # words inside a unit: miles per hour, pieces of fruit


def unquoted(text: str) -> str:
    """The text without quotes or backquotes around all of it."""
    text = text.strip()
    if text[:1] not in _OPENERS:
        return text
    for opening, closing in _QUOTES:
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing) - 1:
            return text if opening in inner or closing in inner or not inner.strip() else unquoted(inner)
    return text


def in_latex(text: str) -> str:
    """The text with powers, infinities, matrices and quantities of code and plain text in LaTeX."""
    if "**" in text:
        text = text.replace("**", "") if _BOLD.search(text) else _POWER.sub(_power, text).replace("**", "")
    if "^" in text:
        text = _LONG_EXPONENT.sub(r"^{\1}", text)
    if "nf" in text or "oo" in text:
        text = _INFINITY.sub(_infinity, text)
    if "[" in text:
        text = _TRANSPOSED.sub(r"\1", _ARRAY.sub(r"\1", text))
        text = _OPEN_ABOVE.sub(r"\1)", _OPEN_BELOW.sub(r"\1(\2", text))
    if "\\choose" in text or "\\over" in text:
        text = _STACKED.sub(_stacked, text)
    if "square" in text or "cubic" in text:
        text = _AREA.sub(r" \\text{\1}", text)
    quantity = _QUANTITY.fullmatch(text.strip().rstrip(".")) if text[-1:].isalpha() or text[-1:] == "." else None
    return _quantity(quantity) if quantity else text


def sizes(text: str) -> str:
    r"""The text with `5 million` and `5 \text{million}` as 5*10^{6}."""
    return _SIZE.sub(_size, text) if "ion" in text or "thousand" in text or "hundred" in text else text


def is_unit(words: str) -> bool:
    """Whether the words after a number can be its unit: "square feet", but not "squared" or "or more"."""
    parts = words.lower().replace(".", " ").split()
    if len(parts) < 2:
        return bool(parts) and parts[0] not in _NO_UNITS and parts[0] not in _PER - {"in"}
    return parts[0] not in _PER - {"per"} and parts[-1] not in ("of", "per") and _NO_UNITS.isdisjoint(parts)


def _power(match: re.Match) -> str:
    return f"^{{{match.group(1)}}}" if match.group(1) else "^"


def _stacked(match: re.Match) -> str:
    return f"{{\\{'binom' if match.group(2) == 'choose' else 'frac'}{{{match.group(1)}}}{{{match.group(3)}}}}}"


def _infinity(match: re.Match) -> str:
    return (" -" if (match.group(1) or "").lower() in ("negative", "minus") else "") + "\\infty "


def _size(match: re.Match) -> str:
    in_text, rest, plain = match.groups()
    return f"*10^{{{_SIZES[in_text or plain]}}}" + (f"\\text{{{rest}}}" if rest else "")


def _quantity(match: re.Match) -> str:
    value, words = match.groups()
    parts = words.replace(".", "").split()
    first = parts[0]
    is_word = len(first) >= 4 or _THREE_LETTERS.fullmatch(first) or (len(parts) > 1 and first in ("sq", "cu"))
    is_name = len(parts) > 1 and len(parts[-1]) == 1  # percent of x
    return f"{value} \\text{{{words}}}" if is_word and is_unit(words) and not is_name else match.group()
