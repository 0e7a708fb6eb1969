"""How many reasoning steps a response has: what breaks ties between questions of one pass rate (README, method step 2).

There is no one convention: PRM800K and TRL take a line for a step, Qwen2.5-Math-PRM and search-and-learn a paragraph,
Math-Shepherd lines that say "Step k". A paragraph of mathematics is often a sentence and the displayed formula it ends
in, with blank lines around the formula: counted apart, they would be steps that nobody took.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..settings.rollouts import LINE, MARKER, PARAGRAPH, compiled

MAX_SEPARATED_CHARS = 100_000  # a separator of the user's is tried on no more: it may backtrack
_THINK = re.compile(r"</?think>")
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_DELIMITER = re.compile(r"\\\[|\\\]|\$\$|```|\\(begin|end)\{(\w{1,40}\*?)\}")
_DISPLAY = "\x00"
_AROUND_DISPLAY = _DISPLAY + " \t\r\n.,;:"  # a formula may end a sentence
_MARKER = re.compile(
    r"^[ \t]{0,8}(?:#{1,6}[ \t]*)?(?:\*\*|__)?(?:Step[ \t]{0,4}\d{1,4}\b|\(?\d{1,4}[.)](?=[\s*_]))",
    re.IGNORECASE | re.MULTILINE | re.ASCII,
)


def count_steps(response: str, rule: str = PARAGRAPH) -> int:
    """Reasoning steps of a response; 0 for an empty one, else at least 1.

    Args:
        rule: one of
            paragraph: blocks between blank lines; blocks of nothing but displayed maths or code belong to the one
                before, and a blank line within them ends no step. Where that gives one block only, its lines.
            line: lines that are not empty.
            marker: lines that begin with "Step k" or "1."; paragraphs where there is none.
            /regex/: what stands between its matches, blanks apart, in the first 100,000 characters. A pattern that
                backtracks ((a+)+b) can take forever: write plain ones (/\\n#+ /).
    """
    text = _THINK.sub("", response)
    if not text.strip():
        return 0
    if rule == LINE:
        return _filled(text.splitlines())
    if rule == MARKER:
        return len(_MARKER.findall(text)) or _paragraphs(text)
    if rule == PARAGRAPH:
        return _paragraphs(text)
    return max(1, _filled(_between(compiled(rule), text[:MAX_SEPARATED_CHARS])))


def _paragraphs(text: str) -> int:
    masked = _mask_display(text)
    n_blocks = _but_display(_BLANK_LINES.split(masked))
    return n_blocks if n_blocks > 1 else _but_display(masked.split("\n"))


def _but_display(pieces: list[str]) -> int:
    """How many pieces are filled; of those that are only displayed maths, none but a first one counts."""
    filled = [piece for piece in pieces if piece.strip()]
    return sum(1 for i, piece in enumerate(filled) if i == 0 or piece.strip(_AROUND_DISPLAY) or _DISPLAY not in piece)


def _mask_display(text: str) -> str:
    """The text with one mark for each display environment and code fence. One pass: a response may be hostile."""
    text = text.replace(_DISPLAY, " ")
    found = list(_DELIMITER.finditer(text))
    ends, nearest = [None] * len(found), {}  # of each delimiter that opens: the nearest one after it that closes
    for i in reversed(range(len(found))):
        opens, closes = _roles(found[i])
        ends[i] = nearest.get(opens)
        if closes:
            nearest[closes] = i
    pieces, position = [], 0
    for i, delimiter in enumerate(found):
        if ends[i] is not None and delimiter.start() >= position:
            pieces += [text[position : delimiter.start()], _DISPLAY]
            position = found[ends[i]].end()
    return "".join([*pieces, text[position:]])


def _roles(delimiter: re.Match) -> tuple[str, str]:
    """(what a delimiter can open, what it can close); "" for nothing."""
    text, side, name = delimiter.group(), delimiter[1], delimiter[2]
    if side:
        return (name, "") if side == "begin" else ("", name)
    return {"\\[": ("[", ""), "\\]": ("", "[")}.get(text, (text, text))


def _between(separator: re.Pattern, text: str) -> Iterator[str]:
    # `re.split` would give the groups of the pattern, too.
    position = 0
    for match in separator.finditer(text):
        yield text[position : match.start()]
        position = match.end()
    yield text[position:]


def _filled(pieces) -> int:
    return sum(1 for piece in pieces if piece.strip())
