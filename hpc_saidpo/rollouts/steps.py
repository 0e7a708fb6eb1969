"""Number of reasoning steps in a response. It orders questions of equal pass rate (method, step 2).

There is no single convention: a step is a line in PRM800K and TRL, a paragraph in Qwen2.5-Math-PRM and
search-and-learn, a line that says "Step k" in Math-Shepherd. A mathematical paragraph is often a sentence that ends in
a displayed formula, with blank lines around the formula: the two are one step and must not be counted as two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..settings.rollouts import LINE, MARKER, PARAGRAPH, compiled

MAX_SEPARATED_CHARS = 100_000  # a user's separator is applied to no more characters: it may backtrack
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
    """Count the reasoning steps of a response: 0 for an empty response, else at least 1.

    Args:
        rule: one of
            paragraph: blocks between blank lines. A block that contains only displayed mathematics or code belongs to
                the block before it, and a blank line inside it ends no step. A response of one block: its lines.
            line: lines that are not empty.
            marker: lines that begin with "Step k" or "1."; paragraphs when there is no such line.
            /regex/: non-blank pieces between its matches, in the first 100,000 characters. A pattern that backtracks,
                such as (a+)+b, can take forever: write plain patterns such as /\\n#+ /.
    """
    text = _THINK.sub("", response)
    if not text.strip():
        return 0
    if rule == LINE:
        return _count_filled(text.splitlines())
    if rule == MARKER:
        return len(_MARKER.findall(text)) or _count_paragraphs(text)
    if rule == PARAGRAPH:
        return _count_paragraphs(text)
    return max(1, _count_filled(_split(compiled(rule), text[:MAX_SEPARATED_CHARS])))


def _count_paragraphs(text: str) -> int:
    masked = _mask_display(text)
    n_blocks = _count_but_display(_BLANK_LINES.split(masked))
    return n_blocks if n_blocks > 1 else _count_but_display(masked.split("\n"))


def _count_but_display(pieces: list[str]) -> int:
    """Number of non-empty pieces. A piece that is only displayed mathematics counts only when it comes first."""
    filled = [piece for piece in pieces if piece.strip()]
    return sum(1 for i, piece in enumerate(filled) if i == 0 or piece.strip(_AROUND_DISPLAY) or _DISPLAY not in piece)


def _mask_display(text: str) -> str:
    """The text with one mark for each display environment and code fence. One pass: a response may be hostile."""
    text = text.replace(_DISPLAY, " ")
    delimiters = list(_DELIMITER.finditer(text))
    ends: list[int | None] = [None] * len(delimiters)  # for a delimiter that opens: the nearest later one that closes
    nearest: dict[str, int] = {}
    for i in reversed(range(len(delimiters))):
        opens, closes = _roles(delimiters[i])
        ends[i] = nearest.get(opens)
        if closes:
            nearest[closes] = i
    pieces, position = [], 0
    for delimiter, end in zip(delimiters, ends, strict=True):
        if end is not None and delimiter.start() >= position:
            pieces += [text[position : delimiter.start()], _DISPLAY]
            position = delimiters[end].end()
    return "".join([*pieces, text[position:]])


def _roles(delimiter: re.Match) -> tuple[str, str]:
    """(name of the environment that a delimiter can open, name that it can close); "" for none."""
    text, side, name = delimiter.group(), delimiter[1], delimiter[2]
    if side:
        return (name, "") if side == "begin" else ("", name)
    return {"\\[": ("[", ""), "\\]": ("", "[")}.get(text, (text, text))


def _split(separator: re.Pattern, text: str) -> Iterator[str]:
    # `re.split` would return the groups of the pattern, too.
    position = 0
    for match in separator.finditer(text):
        yield text[position : match.start()]
        position = match.end()
    yield text[position:]


def _count_filled(pieces: Iterable[str]) -> int:
    return sum(1 for piece in pieces if piece.strip())
